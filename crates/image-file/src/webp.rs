//! Whether a WebP file is all there: its decoder makes room for metadata by the length that a chunk claims, up to 4 GB.

/// Bytes of a chunk's name and length.
const HEADER: usize = 8;
/// Where the chunks begin: behind "RIFF", the file's length and "WEBP".
const CHUNKS: usize = 12;
/// The first chunk of files that have metadata.
const EXTENDED: &[u8] = b"VP8X";
/// Bytes behind the file's own end in which the decoder still looks for chunks of such a file.
const BEYOND: usize = 10;

/// Whether bytes begin like a WebP file and one of its chunks reaches beyond them (RFC 9649, section 2.3). What follows the length that the
/// file says of itself is none of its chunks, but where its decoder takes it for one.
pub(super) fn is_cut_off(bytes: &[u8]) -> bool {
    let Some(&[b'R', b'I', b'F', b'F', a, b, c, d, b'W', b'E', b'B', b'P']) =
        bytes.first_chunk::<CHUNKS>()
    else {
        return false;
    };
    let beyond = if bytes[CHUNKS..].starts_with(EXTENDED) { BEYOND } else { 0 };
    let end = (u32::from_le_bytes([a, b, c, d]) as usize).saturating_add(HEADER + beyond);
    let mut at = CHUNKS;
    while at < end
        && let Some(&[_, _, _, _, a, b, c, d]) = bytes.get(at..).and_then(<[u8]>::first_chunk)
    {
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let start = at + HEADER;
        if length > bytes.len() - start {
            return true;
        }
        // Chunks begin at even places.
        at = start + length.next_multiple_of(2);
    }
    false
}
