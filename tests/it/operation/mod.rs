//! What an operator sees and does: the admin port, probes, metrics, logs, signals, systemd.

mod admin;
mod logs;
mod secrets;
mod shutdown;
mod surroundings;
