//! Words that nobody guesses.

/// 128 random bits in hexadecimal digits.
pub fn word() -> String {
    let mut bits = [0u8; 16];
    // The system's generator fails only where there is none, and then nothing is safe.
    getrandom::fill(&mut bits).expect("the system gives random bits");
    bits.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A seed below 2^32, as other programs have them.
pub fn seed() -> u64 {
    u64::from_str_radix(&word()[..8], 16).unwrap_or_default()
}
