//! The `keyside` binary.

use clap::Parser as _;
use keyside::cli::{Cli, Exit};

// The default allocator of musl is slow with many threads.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Exit {
    Cli::parse().run()
}
