//! `chat`: questions about images, one after the other.

use super::caption::{image, say, summary};
use crate::args::ChatArgs;
use crate::devices;
use crate::interrupt;
use crate::output::Output;
use crate::progress;
use crate::text::fold;
use anyhow::Result;
use rockshard::{Captioner, Pack, Rgb};
use serde_json::json;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

const HELP: &str =
    "/image PATH adds an image to the next question, /quit ends; everything else is a question.";

/// `chat`.
pub fn run(args: &ChatArgs, out: &Output) -> Result<ExitCode> {
    let pack = Pack::open(&args.pack)?;
    let cores = devices::cores(&args.device)?;
    let captioner = Captioner::load(&cores, &pack, &args.words.options(&args.device))?;
    let mut conversation =
        captioner.conversation(args.words.sampling(), interrupt::run_options())?;
    let prompting = std::io::stdin().is_terminal() && !out.quiet;
    if prompting {
        progress::line(HELP);
    }
    let mut images: Vec<Rgb> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let line = line.trim();
        match line.split_once(' ').unwrap_or((line, "")) {
            ("", _) => {}
            ("/quit", _) => break,
            ("/help", _) => progress::line(HELP),
            ("/image", path) => match image(path.trim().as_ref()) {
                Ok(found) => images.push(found),
                Err(error) => progress::line(&format!("rockshard: {error:#}")),
            },
            (command, _) if command.starts_with('/') => {
                progress::line(&format!("rockshard: there is no {command}. {HELP}"));
            }
            _ => {
                let mut tell = |words: &str| {
                    if !out.json {
                        say(words);
                    }
                    interrupt::go_on()
                };
                match conversation.ask(line, &images, args.words.max_tokens, &mut tell) {
                    Ok(answer) => {
                        images.clear();
                        if out.json {
                            let value = json!({ "text": answer.text, "times": answer.times });
                            let _ = writeln!(std::io::stdout(), "{value}");
                        } else {
                            say("\n");
                        }
                        if !out.quiet && !out.json {
                            progress::line(&fold(&summary(&answer)));
                        }
                    }
                    // The conversation is as it was; the images wait for another question.
                    Err(error) => {
                        progress::line(&format!("rockshard: {:#}", anyhow::Error::from(error)))
                    }
                }
            }
        }
        interrupt::end_here_if_asked("");
    }
    Ok(ExitCode::SUCCESS)
}
