//! The `keyside` binary.

fn main() {}
