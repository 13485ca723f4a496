//! The command-line tool `podpool`: looks up the name of a Service, explains why its Pods cannot be used, shows them
//! while they change, and measures checkouts. It uses only the library's public interface.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod args;
mod bench;
mod check;
mod connect;
mod diagnose;
mod facts;
mod lookup;
mod report;
mod resolve;
mod service;
mod style;
mod view;
mod watch;

use std::process::ExitCode;

use args::{Arguments, Command};

/// The exit status for a command line or a URL that is invalid.
const USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(lexopt::Parser::from_env()) {
        Ok(arguments) => arguments,
        Err(error) => return fail(&*error),
    };
    let json = arguments.json;
    let result = match arguments.command {
        Command::Help => {
            print!("{}", args::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Command::Version => {
            println!("podpool {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Resolve(options) => resolve::run(options, json).await,
        Command::Check(config) => check::run(*config, json).await,
        Command::Watch(options) => watch::run(*options, json).await,
        Command::Bench(options) => bench::run(*options, json).await,
    };
    result.unwrap_or_else(|error| fail(&*error))
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("podpool: {error}");
    ExitCode::from(USAGE)
}
