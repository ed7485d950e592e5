//! Options of `convert`.

use super::values::{dim, input_shape, size};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use rockshard::{LoraFile, Optimise, Placement, Sandwich, Shards, Tile};
use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  rockshard convert shards/tiny-lcm --out out/pack
  rockshard convert MODEL --out PACK --compile --rknn-python TOOLKIT/bin/python
  rockshard convert MODEL --out PACK --placement split --resolution 768x512
  rockshard convert MODEL --out PACK --lora style.safetensors:0.8
  rockshard convert model.onnx --out PACK --input-shape x=1x3x640x640 --check"#;

const REWRITES: &str = "Rewrites";
const RECORD: &str = "Recording and checking";
const COMPILER: &str = "Rockchip's compiler";

/// Options of `convert`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConvertArgs {
    /// A directory of ONNX files, as diffusers, optimum or transformers lay them out, or one .onnx file.
    pub model: PathBuf,
    /// Directory of the pack; must not exist.
    #[arg(long, value_name = "PACK")]
    pub out: PathBuf,
    /// Go on with a conversion that was interrupted.
    #[arg(long)]
    pub resume: bool,
    /// Picture size in pixels; repeatable. Default: the model's own.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    pub resolution: Vec<[u32; 2]>,
    /// Items that a network takes at once (a stream's steps, or both halves of guidance); `generate` needs 1.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub batch: u16,
    /// Extent of an open dimension, by its name in the file; repeatable.
    #[arg(long, value_name = "NAME=N", value_parser = dim)]
    pub dim: Vec<(String, usize)>,
    /// Whole shape of an input; repeatable. In a directory's parts, also PART.NAME.
    #[arg(long, value_name = "NAME=AxBxC", value_parser = input_shape)]
    pub input_shape: Vec<(String, Vec<usize>)>,
    /// Keep this output, which may be any value of the file; repeatable. Default: all that the file declares.
    #[arg(long, value_name = "NAME")]
    pub output: Vec<String>,
    /// Fuse a LoRA file (safetensors; kohya, PEFT or diffusers keys) into the weights, multiplied by SCALE (1); repeatable.
    #[arg(long, value_name = "FILE[:SCALE]")]
    pub lora: Vec<LoraFile>,
    /// Bits of a language model's weights: 32 as they came, 8, or 4 (8 for tokens that are read together). Fewer are faster and smaller,
    /// and may choose other words.
    #[arg(long, default_value_t = 32, value_name = "BITS", value_parser = PossibleValuesParser::new(["32", "8", "4"]).map(|b| b.parse::<u32>().unwrap_or(32)))]
    pub lm_weights: u32,

    /// Store values scaled so that float16 holds them: off, auto, or a factor.
    #[arg(long, default_value = "auto", help_heading = REWRITES)]
    pub sandwich: Sandwich,
    /// Calibration inputs for --sandwich auto; the n-th file of an input belongs to the n-th sample.
    /// Default: seeded noise; one small picture where that shows that nothing needs scaling, else two samples of the size that is converted.
    #[arg(long, num_args = 1.., value_name = "[PART.]INPUT=FILE.npy", help_heading = REWRITES)]
    pub calibrate: Vec<String>,
    /// How attention is computed: off, auto, rows:R, grid:RxC, heads.
    #[arg(long, default_value = "auto", help_heading = REWRITES)]
    pub tile: Tile,
    /// Where to cut: auto, block, layer, or a number of shards a model.
    #[arg(long, default_value = "auto", help_heading = REWRITES)]
    pub shards: Shards,
    /// Which core a shard is pinned to: round-robin, balanced, replicate; split divides every operator over the cores.
    #[arg(long, default_value = "round-robin", help_heading = REWRITES)]
    pub placement: Placement,
    /// What --shards auto aims at: throughput cuts a model for three cores; latency and memory leave it whole.
    #[arg(long, default_value = "throughput", help_heading = REWRITES)]
    pub optimise: Optimise,
    /// Make the keys and values of the U-Net's cross-attentions a network of their own, which runs once a prompt: their weights and their
    /// work are not in every row of the U-Net.
    #[arg(long, help_heading = REWRITES)]
    pub precompute_kv: bool,
    /// Keep float32 weights in the shards, for `run --device cpu --rewritten` to compare in float32; by default they hold float16 where the
    /// NPU rounds them anyway.
    #[arg(long, help_heading = REWRITES)]
    pub wide_weights: bool,

    /// Run the original files whole in the reference engine, by its own reading of them, and compare: a judge of what was read.
    #[arg(long, help_heading = RECORD)]
    pub check: bool,
    /// Record the reference's tensors at every boundary, from the calibration inputs or seeded noise: in float32, or in float16 for half
    /// the size.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "f32", require_equals = true, help_heading = RECORD)]
    pub golden: Option<GoldenType>,
    /// Runs to record with --golden, each with inputs of its own.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "golden", value_parser = clap::value_parser!(u16).range(1..), help_heading = RECORD)]
    pub golden_steps: u16,

    /// Compile every NPU shard with Rockchip's rknn-toolkit2.
    #[arg(long, help_heading = COMPILER)]
    pub compile: bool,
    /// Python interpreter that has rknn-toolkit2.
    #[arg(
        long,
        requires = "compile",
        env = "ROCKSHARD_RKNN_PYTHON",
        default_value = "python3",
        value_name = "PATH",
        help_heading = COMPILER
    )]
    pub rknn_python: PathBuf,
    /// Run Rockchip's simulator on the golden tensors too (recorded in float32 if --golden does not say otherwise).
    #[arg(long, requires = "compile", help_heading = COMPILER)]
    pub verify: bool,
    /// Shards compiled at once.
    #[arg(long, value_name = "N", requires = "compile", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), help_heading = COMPILER)]
    pub jobs: u16,
    /// Longest time that one shard may take to compile.
    #[arg(long, requires = "compile", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..), value_name = "SECONDS", help_heading = COMPILER)]
    pub compile_timeout: u64,
}

/// Element type of golden tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GoldenType {
    /// float32.
    F32,
    /// float16.
    F16,
}
