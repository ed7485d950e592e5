//! Generation parameters as EXIF, for files that have no text chunks: the `UserComment` of the Exif standard (CIPA DC-008), as AUTOMATIC1111's web UI writes it.

use super::Parameters;

/// Tag of the pointer to the Exif directory, and of its user comment.
const EXIF_DIRECTORY: u16 = 0x8769;
const USER_COMMENT: u16 = 0x9286;
/// Types of values: an unsigned 32-bit integer, and bytes without a meaning.
const LONG: u16 = 4;
const UNDEFINED: u16 = 7;
/// Bytes of the header, and of a directory with one entry.
const HEADER: u32 = 8;
const DIRECTORY: u32 = 2 + 12 + 4;

/// A big-endian TIFF structure that holds the parameters to read as its user comment.
pub(super) fn user_comment(parameters: &Parameters) -> Vec<u8> {
    let mut comment = b"UNICODE\0".to_vec();
    comment.extend(parameters.readable().encode_utf16().flat_map(u16::to_be_bytes));
    let mut out = b"MM\0*".to_vec();
    out.extend(HEADER.to_be_bytes());
    directory(&mut out, EXIF_DIRECTORY, LONG, 1, HEADER + DIRECTORY);
    let (length, place) = (comment.len() as u32, HEADER + 2 * DIRECTORY);
    directory(&mut out, USER_COMMENT, UNDEFINED, length, place);
    out.extend(comment);
    out
}

/// A directory of one entry, and none after it.
fn directory(out: &mut Vec<u8>, tag: u16, kind: u16, count: u32, value: u32) {
    out.extend(1u16.to_be_bytes());
    out.extend(tag.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(count.to_be_bytes());
    out.extend(value.to_be_bytes());
    out.extend(0u32.to_be_bytes());
}
