//! Whether a JPEG file is all there, since decoders fill what is missing with grey and report nothing.

const START: u8 = 0xd8;
const END: u8 = 0xd9;
const SCAN: u8 = 0xda;

/// Whether bytes begin like a JPEG file and do not reach its end mark. Segments are walked by their lengths, so that the end mark of a
/// preview within one does not count.
pub(super) fn is_cut_off(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, START]) && end(&bytes[2..]).is_none()
}

/// Looks for the end mark in what follows the start mark.
fn end(mut rest: &[u8]) -> Option<()> {
    loop {
        let (marker, after) = next_marker(rest)?;
        match marker {
            END => return Some(()),
            // Marks without a segment: restart marks, a second start mark, and one for private use.
            0x01 | 0xd0..=START => rest = after,
            _ => {
                let &[high, low] = after.first_chunk::<2>()?;
                rest = after.get(usize::from(u16::from_be_bytes([high, low])).max(2)..)?;
                if marker == SCAN {
                    rest = after_scan(rest)?;
                }
            }
        }
    }
}

/// The next mark and what follows it; bytes before it are skipped, as decoders do.
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let at = bytes.windows(2).position(|w| w[0] == 0xff && !matches!(w[1], 0x00 | 0xff))?;
    Some((bytes[at + 1], &bytes[at + 2..]))
}

/// What follows the coded values of a scan: from the first mark that is none of a restart on.
fn after_scan(bytes: &[u8]) -> Option<&[u8]> {
    let ends = |w: &[u8]| w[0] == 0xff && !matches!(w[1], 0x00 | 0xd0..=0xd7 | 0xff);
    bytes.windows(2).position(ends).map(|at| &bytes[at..])
}
