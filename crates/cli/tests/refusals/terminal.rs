//! What is shown while a command works, on a terminal and elsewhere. `script` of util-linux makes the terminal.

use crate::scratch::Scratch;
use std::process::Command;

const CONVERT: &str = "convert tiny-lcm --sandwich 4 --out pack";
/// A prompt that is cut, with a warning.
fn long_prompt() -> String {
    format!("generate pack --steps 1 --out picture.png --prompt \"{}\"", "red ".repeat(100))
}

/// What a terminal of this kind gets to show of a command that succeeds.
fn on_terminal(scratch: &Scratch, line: &str, environment: &[(&str, &str)]) -> String {
    let command = format!("{} {line}", env!("CARGO_BIN_EXE_rockshard"));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    script.current_dir(scratch.path("")).env_remove("RUST_LOG").env_remove("NO_COLOR");
    script.env("TERM", "xterm").envs(environment.iter().copied());
    let output = script.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");
    shown
}

/// Colours are escape sequences that end in `m`.
fn has_colour(shown: &str) -> bool {
    let sequences = shown.split("\x1b[").skip(1);
    let ends = |sequence: &str| sequence.chars().find(char::is_ascii_alphabetic);
    sequences.into_iter().any(|sequence| ends(sequence) == Some('m'))
}

#[test]
fn a_terminal_gets_one_line_that_changes_with_a_bar_once_there_is_a_total() {
    let scratch = Scratch::with_model();
    let shown = on_terminal(&scratch, CONVERT, &[]);
    let states: Vec<&str> = shown.split(['\r', '\n']).filter(|s| s.contains("convert")).collect();
    let reading: Vec<&&str> = states.iter().filter(|s| s.contains("unet: reading")).collect();
    assert!(!reading.is_empty(), "{shown:?}");
    assert!(reading.iter().all(|s| !s.contains('[') || !s.contains("] ")), "{reading:?}");
    let counted = |s: &&str| s.contains("writing shards") && s.contains("] ") && s.contains('/');
    assert!(states.iter().any(counted), "{shown:?}");
}

#[test]
fn a_terminal_that_only_prints_gets_lines() {
    let scratch = Scratch::with_model();
    let shown = on_terminal(&scratch, CONVERT, &[("TERM", "dumb")]);
    assert!(!shown.contains('\x1b'), "{shown:?}");
    assert!(
        shown.lines().any(|line| line.starts_with("convert: unet: writing shards (")),
        "{shown}"
    );
}

#[test]
fn a_warning_has_a_line_of_its_own_and_colours_unless_they_are_not_wanted() {
    let scratch = Scratch::with_pack();
    let warned = |environment: &[(&str, &str)]| {
        let shown = on_terminal(&scratch, &long_prompt(), environment);
        let lines: Vec<&str> = shown.split(['\r', '\n']).collect();
        let warning = lines.iter().find(|line| line.contains("the prompt is too long"));
        let warning = warning.unwrap_or_else(|| panic!("{shown:?}"));
        assert!(!warning.contains("generate ["), "the bar and the warning share a line: {shown:?}");
        warning.to_string()
    };
    assert!(has_colour(&warned(&[])));
    assert!(!has_colour(&warned(&[("NO_COLOR", "1")])));
    assert!(has_colour(&warned(&[("NO_COLOR", "")])), "an empty NO_COLOR is none");
}

#[test]
fn elsewhere_progress_is_lines_that_count_calibration_and_tell_the_time() {
    let scratch = Scratch::with_model();
    let ran = scratch.succeeds("convert tiny-lcm --sandwich auto --out pack");
    assert!(!ran.stderr.contains('\x1b') && !ran.stderr.contains('\r'), "{}", ran.stderr);
    let line = |start: &str| ran.stderr.lines().find(|line| line.starts_with(start));
    let told = line("convert: unet: calibrating on ").unwrap_or_else(|| panic!("{}", ran.stderr));
    assert!(told.ends_with(" s)"), "{told}");
    let quiet = scratch.succeeds("convert tiny-lcm --out other --sandwich off --quiet");
    assert_eq!(quiet.stderr, "");
}
