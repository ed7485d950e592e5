//! Whether a PNG file's palette is one of whole colours, and of as many as an index can name: its decoder relies on it.

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Bytes of a chunk's length and name, and of the check behind its contents.
const HEADER: usize = 8;
const CHECK: usize = 4;
/// Bytes of a colour, and most colours of a palette (PNG specification, third edition, section 11.2.2).
const COLOUR: usize = 3;
const MOST_COLOURS: usize = 256;

/// Whether bytes begin like a PNG file and have another palette.
pub(super) fn has_damaged_palette(bytes: &[u8]) -> bool {
    let Some(mut rest) = bytes.strip_prefix(SIGNATURE) else { return false };
    while let Some((&[a, b, c, d, ref name @ ..], after)) = rest.split_first_chunk::<HEADER>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if name == b"PLTE" && (!length.is_multiple_of(COLOUR) || length > MOST_COLOURS * COLOUR) {
            return true;
        }
        let Some(next) = length.checked_add(CHECK).and_then(|end| after.get(end..)) else {
            return false;
        };
        rest = next;
    }
    false
}
