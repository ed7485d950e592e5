//! Options of `doctor`.

use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  rockshard doctor
  rockshard doctor --pack PACK"#;

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// A pack whose first shard is loaded on the NPU, which then tells the versions of runtime and driver (builds with the `rknn`
    /// feature).
    #[arg(long, value_name = "PACK")]
    pub pack: Option<PathBuf>,
}
