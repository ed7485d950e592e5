//! What is typed.

mod bench;
mod caption;
mod stream;

pub use bench::BenchArgs;
pub use caption::{CaptionArgs, ChatArgs};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use rockshard::{DeviceName, SamplerName};
use rockshard::{LoraFile, Mode, Optimise, Placement, Sandwich, Shards, Tile};
use std::path::PathBuf;
pub use stream::StreamArgs;

/// Stable Diffusion and vision models on the three NPU cores of the RK3588: convert, run, validate. Without a board, a simulated
/// RK3588 is used; times it gives are modelled and called so.
#[derive(Debug, Parser)]
#[command(name = "rockshard", version, about, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print a machine-readable result on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// More log lines (-v, -vv); RUST_LOG overrides.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No progress and no log lines but errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Convert the bundled tiny model, generate a picture on the simulated NPU, validate every layer.
    Demo(DemoArgs),
    /// Convert an ONNX model to a pack.
    Convert(ConvertArgs),
    /// Show what is in a pack.
    Inspect(InspectArgs),
    /// Model what a pack takes in each parallel mode, on one to three cores.
    Plan(PlanArgs),
    /// Generate pictures from a prompt.
    Generate(GenerateArgs),
    /// Draw a stream of frames: pictures, a video, a camera or a screen, with a prompt that may change.
    Stream(StreamArgs),
    /// What each technique of a stream brings: measured on this machine for a pack, modelled on the RK3588 for the same or another.
    Bench(BenchArgs),
    /// Say what is in images, with a vision-language model.
    Caption(CaptionArgs),
    /// Ask a vision-language model about images, one question after the other.
    Chat(ChatArgs),
    /// Run any pack on named inputs.
    Run(RunArgs),
    /// Compare every layer with the CPU reference; exit code 3 when one falls below the threshold.
    Validate(ValidateArgs),
    /// Show what this machine has.
    Doctor(DoctorArgs),
}

/// How items go through the cores, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    /// The planner's choice.
    Auto,
    /// Through shards that are pinned to cores.
    Pipeline,
    /// Each on one core.
    Replicate,
}

impl ModeName {
    /// The mode, unless the planner is to choose.
    pub fn chosen(self) -> Option<Mode> {
        match self {
            ModeName::Auto => None,
            ModeName::Pipeline => Some(Mode::Pipeline),
            ModeName::Replicate => Some(Mode::Replicate),
        }
    }
}

/// Options of commands that run a pack.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// Device to run on.
    #[arg(long, value_parser = device(), default_value = "sim")]
    pub device: DeviceName,
    /// NPU cores to use, 1 to 3.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub cores: u8,
    /// How several items go through the cores: pipeline (each shard on the core that it is pinned to), replicate (every core holds every
    /// shard), or auto, the one that is modelled to be sooner.
    #[arg(long, value_enum, default_value = "auto")]
    pub mode: ModeName,
    /// Most device memory, as modelled, for models that are open together, e.g. 2GB or 900MB; models take turns where they do not fit.
    /// Default: the NPU's address space; none with --device cpu.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub memory_limit: Option<u64>,
    /// Longest time, in seconds, that one shard may take before its core counts as hanging. Default: 30 for the real NPU, an hour
    /// elsewhere.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub time_limit: Option<u64>,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Directory for the pack, the picture, the timeline and the report; the demo's own files in it are replaced.
    #[arg(long, default_value = "out/demo")]
    pub out: PathBuf,
    /// What to draw.
    #[arg(long, default_value = "a large red circle at the left of a blue background")]
    pub prompt: String,
    /// Seed of the noise.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// The model to convert instead of the bundled one.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Device to draw and validate on.
    #[arg(long, value_parser = device(), default_value = "sim")]
    pub device: DeviceName,
    /// How the pictures go through the cores.
    #[arg(long, value_enum, default_value = "auto")]
    pub mode: ModeName,
    /// Python interpreter that has rknn-toolkit2, for a device that runs compiled shards only.
    #[arg(long, env = "ROCKSHARD_RKNN_PYTHON", default_value = "python3", value_name = "PATH")]
    pub rknn_python: PathBuf,
}

/// Options of `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// A diffusers-style ONNX directory, or one .onnx file.
    pub model: PathBuf,
    /// Directory of the pack; must not exist.
    #[arg(long)]
    pub out: PathBuf,
    /// Picture size, WIDTHxHEIGHT in pixels; repeatable. Default: the model's own.
    #[arg(long, value_parser = size)]
    pub resolution: Vec<[u32; 2]>,
    /// Items that a network takes at once (a stream's steps, or both halves of guidance); `generate` needs 1.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
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
    /// Store values scaled so that float16 holds them: off, auto, or a factor.
    #[arg(long, default_value = "auto")]
    pub sandwich: Sandwich,
    /// How attention is computed: off, auto, rows:R, grid:RxC, heads.
    #[arg(long, default_value = "auto")]
    pub tile: Tile,
    /// Where to cut: auto, block, layer, or a number of shards a model.
    #[arg(long, default_value = "auto")]
    pub shards: Shards,
    /// Which core a shard is pinned to: round-robin, balanced, replicate; split divides every operator over the cores.
    #[arg(long, default_value = "round-robin")]
    pub placement: Placement,
    /// What --shards auto aims at: throughput cuts a model for three cores; latency and memory leave it whole.
    #[arg(long, default_value = "throughput")]
    pub optimise: Optimise,
    /// Keep float32 weights in the shards, for run --device cpu --rewritten to compare in float32; by default they hold float16 where the
    /// NPU rounds them anyway.
    #[arg(long)]
    pub wide_weights: bool,
    /// Make the keys and values of the U-Net's cross-attentions a network of their own, which runs once a prompt: their weights and their
    /// work are not in every row of the U-Net.
    #[arg(long)]
    pub precompute_kv: bool,
    /// Bits of a language model's weights: 32 as they came, 8, or 4 (8 for tokens that are read together). Fewer are faster and smaller, and may choose other words.
    #[arg(long, default_value_t = 32, value_name = "BITS", value_parser = PossibleValuesParser::new(["32", "8", "4"]).map(|b| b.parse::<u32>().unwrap_or(32)))]
    pub lm_weights: u32,
    /// Calibration inputs for --sandwich auto: [PART.]INPUT=FILE.npy; the n-th file of an input belongs to the n-th sample.
    /// Default: seeded noise; one small picture where that shows that nothing needs scaling, else two samples of the size that is converted.
    #[arg(long, num_args = 1.., value_name = "[PART.]INPUT=FILE.npy")]
    pub calibrate: Vec<String>,
    /// Fuse a LoRA file (safetensors; kohya, PEFT or diffusers keys) into the weights; repeatable.
    #[arg(long, value_name = "FILE[:SCALE]")]
    pub lora: Vec<LoraFile>,
    /// Record the reference's tensors at every boundary, from the calibration inputs or seeded noise: in float32, or in float16 for half
    /// the size.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "f32", require_equals = true)]
    pub golden: Option<GoldenType>,
    /// Runs to record with --golden, each with inputs of its own.
    #[arg(long, default_value_t = 1, requires = "golden", value_parser = clap::value_parser!(u16).range(1..))]
    pub golden_steps: u16,
    /// Run the original files whole in the reference engine, by its own reading of them, and compare: a judge of what was read.
    #[arg(long)]
    pub check: bool,
    /// Compile every NPU shard with Rockchip's rknn-toolkit2.
    #[arg(long)]
    pub compile: bool,
    /// Python interpreter that has rknn-toolkit2.
    #[arg(
        long,
        requires = "compile",
        env = "ROCKSHARD_RKNN_PYTHON",
        default_value = "python3",
        value_name = "PATH"
    )]
    pub rknn_python: PathBuf,
    /// Run Rockchip's simulator on the golden tensors too (recorded in float32 if --golden does not say otherwise).
    #[arg(long, requires = "compile")]
    pub verify: bool,
    /// Shards compiled at once.
    #[arg(long, requires = "compile", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: u16,
    /// Longest time, in seconds, that one shard may take to compile.
    #[arg(long, requires = "compile", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..), value_name = "SECONDS")]
    pub compile_timeout: u64,
    /// Go on with a conversion that was interrupted.
    #[arg(long)]
    pub resume: bool,
}

/// Element type of golden tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GoldenType {
    /// float32.
    F32,
    /// float16.
    F16,
}

/// Options of `inspect`.
#[derive(Debug, Args)]
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

/// Options of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The pack.
    pub pack: PathBuf,
    /// What the picks aim at: latency (one item), throughput (a stream), memory.
    #[arg(long, default_value = "latency")]
    pub optimise: Optimise,
    /// NPU cores to plan for, 1 to 3.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub cores: u8,
    /// Sampling steps of a picture.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub steps: u16,
    /// Write the modelled timeline as SVG: of a picture where the pack makes pictures, else of one item of its first model.
    #[arg(long, value_name = "FILE.svg")]
    pub timeline: Option<PathBuf>,
    /// Write the same as JSON in the Trace Event Format, for Perfetto.
    #[arg(long, value_name = "FILE.json")]
    pub trace: Option<PathBuf>,
}

/// Options of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The pack.
    pub pack: PathBuf,
    /// What to draw.
    #[arg(long, allow_hyphen_values = true)]
    pub prompt: String,
    /// Sampler. Default: the one that the model's scheduler names.
    #[arg(long, value_parser = sampler())]
    pub sampler: Option<SamplerName>,
    /// Sampling steps. Default: 4 with lcm and tcd, 20 with the others.
    #[arg(long)]
    pub steps: Option<usize>,
    /// Seed of the first picture; the next ones count up.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Guidance scale; 1 is none. Default: 2 with lcm, 1 with tcd, 7.5 with the others.
    #[arg(long)]
    pub guidance: Option<f64>,
    /// What to keep away from (models with classifier-free guidance).
    #[arg(long, allow_hyphen_values = true)]
    pub negative: Option<String>,
    /// Picture size, WIDTHxHEIGHT; one the pack was converted for. Default: its first.
    #[arg(long, value_parser = size)]
    pub size: Option<[u32; 2]>,
    /// PNG to start from.
    #[arg(long)]
    pub init_image: Option<PathBuf>,
    /// How much of the starting picture may change, above 0 up to 1.
    #[arg(long, default_value_t = 0.6, value_parser = strength)]
    pub strength: f64,
    /// Number of pictures.
    #[arg(long, default_value_t = 1)]
    pub count: u32,
    /// PNG to write; with --count, `-0`, `-1`, ... go before the ending.
    #[arg(long, default_value = "picture.png")]
    pub out: PathBuf,
    /// Decode latents in overlapping, blended tiles of N x N latent values with the pack's decoder of that size. Default: where the
    /// pack has no decoder of the picture's size, or none that fits the memory limit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub vae_tile: Option<u32>,
    /// Write the modelled timeline as SVG.
    #[arg(long, value_name = "FILE.svg")]
    pub timeline: Option<PathBuf>,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The pack.
    pub pack: PathBuf,
    /// Model of the pack; may be left out when there is one.
    #[arg(long)]
    pub model: Option<String>,
    /// An input: NAME=FILE.npy; repeatable.
    #[arg(long = "input", value_name = "NAME=FILE.npy")]
    pub inputs: Vec<String>,
    /// Directory for the outputs, NAME.npy each.
    #[arg(long, default_value = ".")]
    pub out: PathBuf,
    /// With --device cpu: compute the shards as they were rewritten for the NPU, in float32, instead of the unchanged reference pieces.
    /// Shows what the rewrites alone change.
    #[arg(long)]
    pub rewritten: bool,
    /// Write every shard's start, end, core and bytes as JSON.
    #[arg(long, value_name = "FILE.json")]
    pub trace: Option<PathBuf>,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Options of `validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// The pack.
    pub pack: PathBuf,
    /// Smallest cosine that passes.
    #[arg(long, default_value_t = 0.999, value_parser = cosine)]
    pub threshold: f64,
    /// Write the report as HTML; the same as JSON goes beside it.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Prompt whose run gives the networks' inputs.
    #[arg(long, default_value = "a small green square at the top right of a white background")]
    pub prompt: String,
    /// Picture that a vision encoder gets, and that the words are about. Default: a red disc on blue.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<PathBuf>,
    /// An input instead: [PART.]NAME=FILE.npy; repeatable. Parts without any get seeded noise.
    #[arg(long = "input", value_name = "[PART.]NAME=FILE.npy")]
    pub inputs: Vec<String>,
    /// The model that the pack was made from, to be run whole by the reference engine's own reading of it and compared: a judge of what
    /// `convert` read. Default: what `convert --check` found.
    #[arg(long, value_name = "MODEL")]
    pub original: Option<PathBuf>,
    /// Compare with the tensors that `convert --golden` recorded, on the inputs recorded with them, instead of running the reference.
    #[arg(long, conflicts_with_all = ["prompt", "image", "inputs"])]
    pub golden: bool,
    /// Device to judge.
    #[arg(long, value_parser = device(), default_value = "sim")]
    pub device: DeviceName,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// A pack whose first shard is loaded on the NPU, which then tells the versions of runtime and driver (builds with the `rknn`
    /// feature).
    #[arg(long)]
    pub pack: Option<PathBuf>,
}

/// The samplers' names, with what each is.
fn sampler() -> impl TypedValueParser<Value = SamplerName> {
    let names = SamplerName::ALL.map(|name| PossibleValue::new(name.as_str()).help(name.title()));
    PossibleValuesParser::new(names).try_map(|name| name.parse::<SamplerName>())
}

/// The devices' names, with what each is.
fn device() -> impl TypedValueParser<Value = DeviceName> {
    let names = DeviceName::ALL.map(|name| {
        PossibleValue::new(name.as_str()).help(match name {
            DeviceName::Sim => "The simulated RK3588: float16 numerics, three cores, modelled time",
            DeviceName::Cpu => "The float32 CPU reference",
            DeviceName::Rknn => "The real NPU (needs a build with the `rknn` feature)",
        })
    });
    PossibleValuesParser::new(names).try_map(|name| name.parse::<DeviceName>())
}

fn size(text: &str) -> Result<[u32; 2], String> {
    let parse = |t: &str| t.parse::<u32>().ok().filter(|&n| n > 0);
    let parsed = text.split_once('x').and_then(|(w, h)| Some([parse(w)?, parse(h)?]));
    parsed.ok_or_else(|| format!("{text:?} is not WIDTHxHEIGHT, e.g. 512x512"))
}

/// `NAME=N`.
fn dim(text: &str) -> Result<(String, usize), String> {
    let parsed =
        text.rsplit_once('=').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
    parsed
        .filter(|(name, n)| !name.is_empty() && *n > 0)
        .ok_or_else(|| format!("{text:?} is not NAME=N with N of 1 and more, e.g. batch=1"))
}

/// `NAME=AxBxC`; nothing behind the sign is the shape of a single number.
fn input_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let wrong = || format!("{text:?} is not NAME=AxBxC, e.g. x=1x3x224x224");
    let (name, shape) = text.rsplit_once('=').ok_or_else(wrong)?;
    let extents = shape.split('x').filter(|_| !shape.is_empty()).map(|d| d.parse().ok());
    let extents: Vec<usize> = extents.collect::<Option<_>>().ok_or_else(wrong)?;
    if name.is_empty() { Err(wrong()) } else { Ok((name.to_owned(), extents)) }
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("{text:?} is not a size, e.g. 2GB, 900MB or 1.5GiB")),
    };
    let value =
        number.parse::<f64>().ok().map(|n| n * factor).filter(|&b| b >= 1.0 && b < u64::MAX as f64);
    value
        .map(|b| b as u64)
        .ok_or_else(|| format!("{text:?} is not a size, e.g. 2GB, 900MB or 1.5GiB"))
}

fn strength(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|&v| v > 0.0 && v <= 1.0);
    value.ok_or_else(|| format!("{text:?} is not a number above 0 up to 1"))
}

fn cosine(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|v| (-1.0..=1.0).contains(v));
    value.ok_or_else(|| format!("{text:?} is not a cosine from -1 to 1"))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_units() {
        for (text, value) in [
            ("900MB", 900_000_000),
            ("1.5GiB", 1_610_612_736),
            ("2 GB", 2_000_000_000),
            ("4096", 4096),
            ("1kB", 1000),
        ] {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        for text in ["", "GB", "-1GB", "2gb", "1..5MB", "0", "inf"] {
            assert!(bytes(text).unwrap_err().contains("is not a size"), "{text}");
        }
    }
}
