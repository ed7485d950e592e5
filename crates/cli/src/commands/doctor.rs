use crate::output::Output;
use anyhow::Result;
use rockshard_converter::Toolkit;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// Files that tell about the NPU, and what they tell.
const PLACES: [(&str, &str); 5] = [
    ("board", "/proc/device-tree/model"),
    ("NPU driver", "/sys/kernel/debug/rknpu/version"),
    ("NPU load", "/sys/kernel/debug/rknpu/load"),
    ("NPU clock", "/sys/class/devfreq/fdab0000.npu/cur_freq"),
    ("memory clock", "/sys/class/devfreq/dmc/cur_freq"),
];
const RUNTIMES: [&str; 3] = ["/usr/lib/librknnrt.so", "/usr/lib/aarch64-linux-gnu/librknnrt.so", "/usr/local/lib/librknnrt.so"];

/// `doctor`.
pub fn run(out: &Output) -> Result<ExitCode> {
    let mut facts: Vec<(String, String)> = Vec::new();
    let mut fact = |name: &str, value: Option<String>| facts.push((name.to_owned(), value.unwrap_or_else(|| "not found".to_owned())));
    fact("rockshard", Some(format!("{} ({}-{})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS)));
    fact("processors", std::thread::available_parallelism().ok().map(|n| n.to_string()));
    fact("memory", memory());
    for (name, path) in PLACES {
        fact(name, std::fs::read_to_string(path).ok().map(|t| t.trim_matches(['\0', '\n', ' ']).to_owned()));
    }
    fact("librknnrt", RUNTIMES.iter().find(|p| Path::new(p).exists()).map(|p| (*p).to_owned()));
    fact("rknn-toolkit2", Toolkit::version(Path::new("python3")).ok());
    fact("device sim", Some("ready: simulated RK3588, three cores, float16 numerics, modelled time".into()));
    fact("device cpu", Some("ready: float32 reference (rten)".into()));
    fact("device rknn", Some("not in this build".into()));
    let value: serde_json::Map<String, serde_json::Value> = facts.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    out.result(&value, || facts.iter().map(|(k, v)| format!("{k:<14} {v}")).collect::<Vec<_>>().join("\n"));
    Ok(ExitCode::SUCCESS)
}

fn memory() -> Option<String> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
    Some(format!("{:.1} GB, {:.1} GB free", field("MemTotal:")? as f64 / 1e6, field("MemAvailable:")? as f64 / 1e6))
}
