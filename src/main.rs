//! Turns arguments into a command, and its result into an exit code.

use std::panic::catch_unwind;
use std::process::ExitCode;

use hopgate::cli::{Cli, Command, EXIT_BUG, check, completions, demo, explain, health, import, man, run};

fn main() -> ExitCode {
    let cli = Cli::parse_or_exit();
    // The panic has said what is wrong by then; the code says that it is nobody else's mistake.
    let code = catch_unwind(|| match &cli.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Health(arguments) => health::health(arguments),
        Command::Check(arguments) => check::check(arguments),
        Command::Explain(arguments) => explain::explain(arguments),
        Command::Import(arguments) => import::import(arguments),
        Command::Demo(arguments) => demo::demo(arguments),
        Command::Completions(arguments) => completions::completions(arguments),
        Command::Man(arguments) => man::man(arguments),
    });
    ExitCode::from(code.unwrap_or(EXIT_BUG))
}
