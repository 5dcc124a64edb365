//! `hopgate completions`: what has a shell complete the arguments.

use std::io::Write;

use clap::CommandFactory;

use super::{Cli, CompletionsArgs, EXIT_DONE};

/// Prints the script for a shell.
pub fn completions(args: &CompletionsArgs) -> u8 {
    // Into memory first: writing it to a pipe that is closed is no bug.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hopgate", &mut script);
    let _ = std::io::stdout().write_all(&script);
    EXIT_DONE
}
