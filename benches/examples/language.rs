//! Reads a prompt and says on greedily, once for each line of standard input, and prints the seconds of both: the half of `benches/language.py` that is ours.
//! At the end it prints its peak resident memory in bytes. A line may name a file, to which the logits of the prompt's last token and of each token
//! said are written, as little-endian float32.
//!
//! Usage: `language FOLDER PROMPT SAID THREADS`
#![allow(clippy::print_stdout)]

use anyhow::Result;
use rockshard_benches::peak_resident_bytes;
use rockshard_vlm::{LanguageModel, Sampler, Session};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const CONTEXT: usize = 8192;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, prompt, said, threads] = &arguments[..] else {
        anyhow::bail!("usage: language FOLDER PROMPT SAID THREADS")
    };
    let (prompt, said): (u32, usize) = (prompt.parse()?, said.parse()?);
    let start = Instant::now();
    let model = Arc::new(LanguageModel::open(Path::new(folder), CONTEXT, Some(threads.parse()?))?);
    // The tokens of benches/language.py.
    let tokens: Vec<u32> = (0..prompt).map(|at| (at * 7919 + 13) % 40_000).collect();
    println!("ready {}", start.elapsed().as_secs_f64());
    for line in std::io::stdin().lines() {
        let line = line?;
        let mut session = Session::new(model.clone());
        let start = Instant::now();
        let mut logits = session.feed(&model.embed(&tokens)?)?;
        let read = start.elapsed().as_secs_f64();
        let mut all = logits.clone();
        let start = Instant::now();
        for _ in 0..said {
            let token = Sampler::greedy().choose(&logits, &[]);
            logits = session.feed(&model.embed(&[token])?)?;
            all.extend(&logits);
        }
        println!("{read} {}", start.elapsed().as_secs_f64());
        if !line.trim().is_empty() {
            let bytes: Vec<u8> = all.iter().flat_map(|v| v.to_le_bytes()).collect();
            std::fs::write(line.trim(), bytes)?;
        }
    }
    println!("{}", peak_resident_bytes()?);
    Ok(())
}
