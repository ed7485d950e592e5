//! `rockshard`: convert, run and validate diffusion and vision models on the three-core NPU of the RK3588.
#![allow(clippy::print_stdout)]

mod args;
mod commands;
mod devices;
mod files;
mod inputs;
mod interrupt;
mod output;
mod progress;
mod remedy;
mod text;
mod video;

use args::{Cli, Command};
use clap::Parser;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| called_wrongly(&error));
    progress::start_logging(cli.verbose, cli.quiet);
    interrupt::listen();
    let out = Output { json: cli.json, quiet: cli.quiet };
    let result = match &cli.command {
        Command::Demo(a) => commands::demo::run(a, &out),
        Command::Convert(a) => commands::convert::run(a, &out),
        Command::Inspect(a) => commands::inspect::run(a, &out),
        Command::Plan(a) => commands::plan::run(a, &out),
        Command::Generate(a) => commands::generate::run(a, &out),
        Command::Stream(a) => commands::stream::run(a, &out),
        Command::Bench(a) => commands::bench::run(a, &out),
        Command::Caption(a) => commands::caption::run(a, &out),
        Command::Chat(a) => commands::chat::run(a, &out),
        Command::Serve(a) => commands::serve::run(a, &out),
        Command::Run(a) => commands::run::run(a, &out),
        Command::Validate(a) => commands::validate::run(a, &out),
        Command::Doctor(a) => commands::doctor::run(a, &out),
    };
    match result {
        Ok(code) => code,
        Err(error) if interrupt::cancel().is_cancelled() => {
            out.failure(&format!("interrupted ({})", message(&error)));
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(error) => {
            out.failure(&message(&error));
            ExitCode::FAILURE
        }
    }
}

/// End a program that was called wrongly, or asked for help.
fn called_wrongly(error: &clap::Error) -> ! {
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let text = error.render().to_string();
        let text = text.trim().trim_start_matches("error: ");
        Output { json: true, quiet: false }.failure(text);
        std::process::exit(error.exit_code());
    }
    error.exit()
}

/// An error, its causes and what to do about it on one line, without causes whose text is already there.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    if let Some(remedy) = remedy::remedy(error) {
        text += &format!("; {remedy}");
    }
    text
}
