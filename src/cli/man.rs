use std::io::Write as _;

use clap::CommandFactory as _;

use super::{Cli, Exit};

/// Print the manual page.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(_: &Args) -> Exit {
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
    match rendered.and_then(|()| std::io::stdout().write_all(&page)) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    }
}
