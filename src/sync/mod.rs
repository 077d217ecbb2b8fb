//! Where keys come from: a key file that is watched, or a control endpoint that is followed. What is found is applied to
//! the key store on a thread of its own.
//!
//! | file | holds |
//! |---|---|
//! | [`keyfile`] | reading and writing the key file, locked and crash-safe |
//! | [`state`] | what is kept beside it: the last good text, and which one is in force |
//! | [`file`](mod@file) | the key file as the source: watches, judges, applies, reports |
//! | [`endpoint`] | a control endpoint as the source |

pub mod endpoint;
pub mod file;
pub mod keyfile;
mod source;
pub mod state;
#[cfg(test)]
mod tests;
mod watch;
