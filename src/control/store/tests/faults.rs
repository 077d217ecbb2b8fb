//! Bad days of the file and of the server: what is answered meanwhile, and that all is well again afterwards.

mod file;
mod server;
