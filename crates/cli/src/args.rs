//! What is typed.

mod bench;
mod caption;
mod convert;
mod demo;
mod device;
mod doctor;
mod generate;
mod inspect;
mod plan;
mod run;
mod serve;
mod stream;
mod validate;
mod values;

pub use bench::BenchArgs;
pub use caption::{CaptionArgs, ChatArgs};
use clap::{ArgAction, Parser, Subcommand};
pub use convert::{ConvertArgs, GoldenType};
pub use demo::DemoArgs;
pub use device::DeviceArgs;
pub use doctor::DoctorArgs;
pub use generate::GenerateArgs;
pub use inspect::InspectArgs;
pub use plan::PlanArgs;
pub use run::RunArgs;
pub use serve::ServeArgs;
pub use stream::StreamArgs;
pub use validate::ValidateArgs;

const EXAMPLES: &str = r#"Examples:
  rockshard demo
  rockshard convert MODEL --out PACK
  rockshard generate PACK --prompt "a yellow ring on a black background"
  rockshard validate PACK --report report.html

MODEL is a directory of ONNX files as diffusers, optimum or transformers name
them, or one .onnx file. `rockshard COMMAND --help` has every option."#;

/// The heading of options that every command takes.
const GLOBAL: &str = "Global options";

/// Stable Diffusion and vision models on the three NPU cores of the RK3588: convert, run, validate.
///
/// Without a board, a simulated RK3588 is used; times it gives are modelled and called so.
#[derive(Debug, Parser)]
#[command(
    name = "rockshard",
    version,
    max_term_width = 100,
    after_help = EXAMPLES,
    disable_help_flag = true,
    disable_version_flag = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print the result, or the error, as a JSON object on standard output.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// Log more (-v, -vv); RUST_LOG overrides.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = GLOBAL)]
    pub verbose: u8,
    /// Show no progress, and log errors only.
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub quiet: bool,
    /// Show help; -h is the short form of it.
    #[arg(short, long, global = true, action = ArgAction::Help, help_heading = GLOBAL)]
    help: Option<bool>,
    /// Show the version.
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = GLOBAL)]
    version: Option<bool>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Convert the bundled models, draw a picture, describe it, validate every layer.
    Demo(DemoArgs),
    /// Convert an ONNX model to a pack.
    Convert(ConvertArgs),
    /// Show what is in a pack.
    Inspect(InspectArgs),
    /// Model how long a pack takes in each parallel mode, on one to three cores.
    Plan(PlanArgs),
    /// Generate pictures from a prompt.
    Generate(GenerateArgs),
    /// Draw every frame of a video, a camera, a screen or a directory anew.
    Stream(StreamArgs),
    /// Measure what each technique of a stream brings, on this machine and modelled on the RK3588.
    Bench(BenchArgs),
    /// Say what is in images, with a vision-language model.
    Caption(CaptionArgs),
    /// Ask a vision-language model about images, one question after the other.
    Chat(ChatArgs),
    /// Serve pictures, streams and captions over HTTP, and a page.
    Serve(ServeArgs),
    /// Run any pack on named inputs.
    Run(RunArgs),
    /// Compare every layer with the CPU reference; exit code 3 when one falls below the threshold.
    Validate(ValidateArgs),
    /// Show what this machine has: features, simulator, NPU library, vendor's compiler.
    Doctor(DoctorArgs),
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::{CommandFactory, Parser};

    /// The lines of a command's help that are meant to be typed.
    fn examples(command: &clap::Command) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = help.lines().map(str::trim).filter(|line| line.starts_with("rockshard "));
        lines.map(str::to_owned).collect()
    }

    /// Words as a shell takes them: blanks divide, quotes keep together, a lone # begins a comment.
    fn words(line: &str) -> Vec<String> {
        let quoted = line.split('"').enumerate();
        let mut words = quoted.flat_map(|(n, part)| match n % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.by_ref().take_while(|word| word != "#").collect()
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        let mut root = Cli::command();
        root.build();
        let commands = root.get_subcommands().filter(|command| command.get_name() != "help");
        for command in commands {
            let lines = examples(command);
            assert!(!lines.is_empty(), "{} has no example", command.get_name());
            for line in lines {
                assert!(line.contains(command.get_name()), "{line}");
                assert!(line.len() <= 78, "{line} is broken in two on 80 columns");
                Cli::try_parse_from(words(&line)).unwrap_or_else(|e| panic!("{line}\n{e}"));
            }
        }
    }

    #[test]
    fn no_line_of_help_is_longer_than_100_columns() {
        let mut root = Cli::command().term_width(100);
        root.build();
        for command in root.get_subcommands_mut() {
            let name = command.get_name().to_owned();
            let help = command.clone().term_width(100).render_long_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 100, "{name}: {line}");
            }
        }
    }
}
