//! What the comparisons in this folder share. Each prints a ratio against a named peer, measured in one run; see the README.

use anyhow::{Context, Result};

/// Largest resident memory of this process so far, in bytes.
///
/// # Errors
/// The system does not tell (only Linux does).
pub fn peak_resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .context("no VmHWM in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
