//! `doctor`: what this machine has, a fact a line.

use crate::args::DoctorArgs;
use crate::output::Output;
use crate::text::fold;
use anyhow::Result;
use rockshard::Toolkit;
use rockshard_devices::RKNNRT;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Files that tell about the NPU, and what they tell; the first of several that can be read.
const PLACES: [(&str, &[&str]); 5] = [
    ("board", &["/proc/device-tree/model"]),
    (
        "NPU driver",
        &["/sys/kernel/debug/rknpu/version", "/proc/rknpu/version", "/sys/module/rknpu/version"],
    ),
    ("NPU load", &["/sys/kernel/debug/rknpu/load", "/proc/rknpu/load"]),
    ("NPU clock", &["/sys/class/devfreq/fdab0000.npu/cur_freq"]),
    ("memory clock", &["/sys/class/devfreq/dmc/cur_freq"]),
];
const RUNTIMES: [&str; 3] = [
    "/usr/lib/librknnrt.so",
    "/usr/lib/aarch64-linux-gnu/librknnrt.so",
    "/usr/local/lib/librknnrt.so",
];

/// A line of the answer.
type Fact = (String, String);

fn fact(name: &str, value: impl Into<String>) -> Fact {
    (name.to_owned(), value.into())
}

/// `doctor`.
pub fn run(args: &DoctorArgs, out: &Output) -> Result<ExitCode> {
    let found = |value: Option<String>| value.unwrap_or_else(|| "not found".to_owned());
    let mut facts = vec![
        fact(
            "rockshard",
            format!(
                "{} ({}-{})",
                env!("CARGO_PKG_VERSION"),
                std::env::consts::ARCH,
                std::env::consts::OS
            ),
        ),
        fact("processors", found(std::thread::available_parallelism().ok().map(|n| n.to_string()))),
        fact("memory", found(memory())),
    ];
    facts.extend(PLACES.map(|(name, paths)| fact(name, first_of(paths))));
    facts.push(fact("librknnrt", found(library())));
    facts.push(fact("rknn-toolkit2", found(Toolkit::version(Path::new("python3")).ok())));
    facts.push(fact(
        "device sim",
        "ready: simulated RK3588, three cores, float16 numerics, modelled time",
    ));
    facts.push(fact("device cpu", "ready: float32 reference (rten)"));
    facts.extend(npu::facts(args.pack.as_deref()));
    let value: serde_json::Map<String, serde_json::Value> =
        facts.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    out.result(&value, || {
        facts.iter().map(|(k, v)| fold(&format!("{k:<14} {v}"))).collect::<Vec<_>>().join("\n")
    });
    Ok(ExitCode::SUCCESS)
}

/// The text of the first file that can be read. One that is there and may not be read is said so.
fn first_of(paths: &[&str]) -> String {
    let texts: Vec<_> = paths.iter().map(|path| (path, std::fs::read_to_string(path))).collect();
    let denied = texts
        .iter()
        .find(|(_, t)| t.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied));
    let denied = denied.map(|(path, _)| format!("{path} may be read by root only"));
    let text = texts.into_iter().find_map(|(_, text)| text.ok());
    text.map(|t| t.trim_matches(['\0', '\n', ' ']).to_owned())
        .or(denied)
        .unwrap_or_else(|| "not found".to_owned())
}

/// The library's file: the one that the environment names, or one where systems have it.
fn library() -> Option<String> {
    match std::env::var_os(RKNNRT).map(PathBuf::from) {
        Some(path) if path.is_file() => Some(format!("{} ({})", path.display(), RKNNRT)),
        Some(path) => Some(format!("{} ({}) is not there", path.display(), RKNNRT)),
        None => RUNTIMES.iter().find(|p| Path::new(p).exists()).map(|p| (*p).to_owned()),
    }
}

fn memory() -> Option<String> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok())
    };
    Some(format!(
        "{:.1} GB, {:.1} GB free",
        field("MemTotal:")? as f64 / 1e6,
        field("MemAvailable:")? as f64 / 1e6
    ))
}

#[cfg(not(feature = "rknn"))]
mod npu {
    use super::{Fact, fact};
    use std::path::Path;

    pub(super) fn facts(_pack: Option<&Path>) -> Vec<Fact> {
        vec![fact("device rknn", "not in this build (feature rknn)")]
    }
}

/// What the runtime tells. It has no versions to ask for before a model is loaded: the library's comes from its file, and both its
/// own and the driver's from a context, where a pack gives a shard to load.
#[cfg(feature = "rknn")]
mod npu {
    use super::{Fact, fact};
    use anyhow::{Context, Result};
    use rockshard_device::{Device, Takes, Version};
    use rockshard_devices::{RknnDevice, load_rknn};
    use rockshard_manifest::{CoreId, Shard};
    use rockshard_pack::{Pack, Variant};
    use std::path::Path;

    pub(super) fn facts(pack: Option<&Path>) -> Vec<Fact> {
        let device = match load_rknn() {
            Ok(device) => device,
            Err(error) => return vec![fact("device rknn", crate::message(&error.into()))],
        };
        let library =
            device.library().map_or_else(|| "librknnrt".to_owned(), |p| p.display().to_string());
        let version = device.runtime().unwrap_or("unknown until a shard is loaded");
        let takes = match device.takes() {
            Takes::Graph => "simulated by rknnrt-sim, takes .onnx",
            Takes::Compiled { .. } => "takes .rknn (convert --compile)",
        };
        let mut facts =
            vec![fact("device rknn", format!("{library} loads; version {version}; {takes}"))];
        if let Some(pack) = pack {
            facts.push(fact(
                "pack",
                shard(&device, pack).unwrap_or_else(|error| crate::message(&error)),
            ));
        }
        facts
    }

    /// Load the pack's first shard of the NPU.
    fn shard(device: &RknnDevice, path: &Path) -> Result<String> {
        let pack = Pack::open(path)?;
        let shards = pack.manifest().models.iter().flat_map(|m| &m.shards);
        let shard = shards
            .into_iter()
            .find(|s| s.core != CoreId::Host)
            .context("the pack has no shard for the NPU")?;
        let file = pack.shard_file(shard, Variant::of(device))?;
        let versions = device.versions(&file)?;
        device.open(&file, CoreId::Npu(0))?;
        let text = format!(
            "{}: shard {} opens on librknnrt {}, driver {}",
            path.display(),
            shard.name,
            versions.runtime,
            versions.driver
        );
        Ok(text + &compiled_by(shard, &versions.runtime))
    }

    /// Of which toolkit the shard is, where the runtime takes what the toolkit made.
    fn compiled_by(shard: &Shard, runtime: &str) -> String {
        let Some(compiled) = &shard.compiled else { return String::new() };
        let other = Version::parse(&compiled.toolkit) != Version::parse(runtime);
        let note = if other {
            "; another version than the runtime's: if it crashes, compile again with the runtime's"
        } else {
            ""
        };
        format!(", compiled by rknn-toolkit2 {}{note}", compiled.toolkit)
    }
}
