//! Options of `inspect`.

use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  rockshard inspect PACK --why
  rockshard inspect PACK --graph shards.dot"#;

/// Options of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// The pack.
    pub pack: PathBuf,
    /// What was noticed about the files, what each pass did and declined, and why.
    #[arg(long)]
    pub why: bool,
    /// The vendor compiler's table of layers for each compiled shard.
    #[arg(long)]
    pub layers: bool,
    /// Write the graph of shards as Graphviz dot to this file.
    #[arg(long, value_name = "FILE.dot")]
    pub graph: Option<PathBuf>,
}
