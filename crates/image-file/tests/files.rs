//! Files as people bring them: animations show their first picture, and what is not whole is refused.

use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ExtendedColorType, ImageFormat, RgbImage};
use rockshard_image_file::{ImageFileError, decode};
use std::io::Cursor;
use std::path::Path;

const RED: [u8; 3] = [200, 30, 40];
const BLUE: [u8; 3] = [20, 40, 220];
const SIDE: u32 = 16;
/// A frame replaces what was there.
const NO_BLENDING: u8 = 2;

fn plain(colour: [u8; 3]) -> RgbImage {
    RgbImage::from_pixel(SIDE, SIDE, image::Rgb(colour))
}

fn encoded(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(plain(RED)).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn animated_png() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIDE, SIDE);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    for colour in [RED, BLUE] {
        writer.write_image_data(plain(colour).as_raw()).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

/// A chunk of a RIFF file.
fn chunk(name: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    let mut bytes = [&name[..], &(contents.len() as u32).to_le_bytes(), contents].concat();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

/// Two frames as the container specification of WebP lays them out (RFC 9649, section 2.7).
fn animated_webp() -> Vec<u8> {
    let three = |value: u32| value.to_le_bytes()[..3].to_vec();
    let frame = |colour| {
        let mut still = Vec::new();
        let encoder = WebPEncoder::new_lossless(&mut still);
        encoder.encode(plain(colour).as_raw(), SIDE, SIDE, ExtendedColorType::Rgb8).unwrap();
        let place =
            [three(0), three(0), three(SIDE - 1), three(SIDE - 1), three(100), vec![NO_BLENDING]];
        // What follows "RIFF", the size and "WEBP" of a still picture is its one chunk.
        chunk(b"ANMF", &[place.concat(), still[12..].to_vec()].concat())
    };
    let canvas = [vec![2, 0, 0, 0], three(SIDE - 1), three(SIDE - 1)].concat();
    let parts = [
        b"WEBP".to_vec(),
        chunk(b"VP8X", &canvas),
        chunk(b"ANIM", &[0; 6]),
        frame(RED),
        frame(BLUE),
    ];
    chunk(b"RIFF", &parts.concat())
}

#[test]
fn an_animation_is_its_first_picture() {
    for bytes in [animated_png(), animated_webp()] {
        let image = decode(&bytes).unwrap().into_rgb8();
        assert_eq!((image.dimensions(), image.get_pixel(3, 9)), ((SIDE, SIDE), &image::Rgb(RED)));
    }
}

#[test]
fn what_is_not_whole_is_refused() {
    assert!(matches!(decode(b""), Err(ImageFileError::Empty)));
    assert!(matches!(decode(b"no image"), Err(ImageFileError::Decode(_))));
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let whole = encoded(format);
        assert!(decode(&whole).is_ok());
        for end in [whole.len() / 3, whole.len() / 2] {
            assert!(decode(&whole[..end]).is_err(), "{format:?} of {end} bytes");
        }
    }
    let jpeg = encoded(ImageFormat::Jpeg);
    let cut = decode(&jpeg[..jpeg.len() - 2]).unwrap_err();
    assert!(matches!(cut, ImageFileError::CutOff(bytes) if bytes == jpeg.len() - 2));
}

/// Room for metadata is not made by what a chunk claims.
#[test]
fn a_webp_chunk_is_as_long_as_the_file_at_most() {
    let mut bytes = encoded(ImageFormat::WebP);
    let chunk = [&b"EXIF"[..], &u32::MAX.to_le_bytes(), b"II*\0"].concat();
    bytes.extend(chunk);
    // Bytes after the file's own end are no chunks.
    assert!(decode(&bytes).is_ok());
    let length = bytes.len();
    bytes[4..8].copy_from_slice(&(length as u32 - 8).to_le_bytes());
    let refused = decode(&bytes).unwrap_err();
    assert!(matches!(refused, ImageFileError::WebPCutOff(found) if found == length), "{refused}");
}

/// A palette of half a colour, and one of more colours than there are indices.
#[test]
fn a_damaged_palette_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/picture");
    let half = std::fs::read(folder.join("half_a_colour.png")).unwrap();
    let whole = std::fs::read(folder.join("palette.png")).unwrap();
    let at = whole.windows(4).position(|w| w == b"PLTE").unwrap();
    let mut large = whole.clone();
    large.splice(at - 4..at, (257 * 3u32).to_be_bytes());
    large.splice(at + 4..at + 4, [0; 257 * 3]);
    for bytes in [half, large] {
        let refused = decode(&bytes).unwrap_err();
        assert!(matches!(refused, ImageFileError::Palette), "{refused}");
    }
    assert!(decode(&whole).is_ok());
}

/// The decoder looks for metadata a little behind the file's own end.
#[test]
fn a_webp_chunk_behind_the_end_is_as_long_as_the_file_at_most() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/picture");
    let bytes = std::fs::read(seeds.join("chunk_behind_the_end.webp")).unwrap();
    let refused = decode(&bytes).unwrap_err();
    assert!(matches!(refused, ImageFileError::WebPCutOff(_)), "{refused}");
}
