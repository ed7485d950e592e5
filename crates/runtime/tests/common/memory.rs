//! Memory and threads of this process.

/// A number from `/proc/self/status`.
pub fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Memory of this process. A leak makes both grow; each alone also has what is not the program's.
pub struct Memory {
    /// Resident bytes; under an emulator also its own, of which threads that ended leave some behind.
    pub resident: u64,
    /// Bytes of writable mappings; also stacks that the C library keeps for new threads.
    writable: u64,
}

impl Memory {
    pub fn now() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let bytes = |line: &str| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            let [from, to] = [from, to].map(|n| u64::from_str_radix(n, 16).unwrap());
            rest.starts_with("rw").then(|| to - from)
        };
        Memory { resident: status("VmRSS") * 1024, writable: maps.lines().filter_map(bytes).sum() }
    }

    /// Bytes by which it has grown for sure.
    pub fn grown_since(&self, before: &Memory) -> u64 {
        self.resident
            .saturating_sub(before.resident)
            .min(self.writable.saturating_sub(before.writable))
    }
}
