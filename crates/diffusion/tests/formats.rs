//! Picture files that people have: JPEG as cameras and telephones write it, WebP, and what is damaged or too large.

use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, RgbImage};
use rockshard_diffusion::Picture;

/// A red quarter at the top left of 48x32 white pixels: its place shows any turn or reflection.
fn quarter() -> RgbImage {
    RgbImage::from_fn(48, 32, |x, y| {
        image::Rgb(if x < 24 && y < 16 { [220, 10, 10] } else { [250, 250, 250] })
    })
}

fn jpeg(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(image).unwrap();
    bytes
}

fn webp(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = image.dimensions();
    WebPEncoder::new_lossless(&mut bytes)
        .encode(image, width, height, ExtendedColorType::Rgb8)
        .unwrap();
    bytes
}

/// A JPEG with an EXIF orientation (Exif 2.32, 4.6.4: tag 274), in an APP1 segment behind its start.
fn oriented(jpeg: &[u8], orientation: u16) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01".to_vec();
    exif.extend(274u16.to_be_bytes());
    exif.extend(3u16.to_be_bytes());
    exif.extend(1u32.to_be_bytes());
    exif.extend(orientation.to_be_bytes());
    exif.extend([0, 0, 0, 0, 0, 0]);
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

/// Width, height, and the quarter that is red: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
fn seen(picture: &Picture) -> (u32, u32, Option<usize>) {
    let (w, h) = (picture.width as usize, picture.height as usize);
    let red = |quarter: &usize| {
        let (x, y) = (w / 4 + quarter % 2 * w / 2, h / 4 + quarter / 2 * h / 2);
        let [r, g, _] = picture.rgb[(y * w + x) * 3..][..3] else { return false };
        r > 200 && g < 60
    };
    (picture.width, picture.height, (0..4).find(red))
}

#[test]
fn a_jpeg_is_turned_upright() {
    let plain = jpeg(&quarter());
    assert_eq!(seen(&Picture::from_bytes(&plain).unwrap()), (48, 32, Some(0)));
    // What the eight orientations say of the first row and column.
    let table = [
        (1, 48, 32, 0),
        (2, 48, 32, 1),
        (3, 48, 32, 3),
        (4, 48, 32, 2),
        (5, 32, 48, 0),
        (6, 32, 48, 1),
        (7, 32, 48, 3),
        (8, 32, 48, 2),
    ];
    for (orientation, width, height, place) in table {
        let picture = Picture::from_bytes(&oriented(&plain, orientation)).unwrap();
        assert_eq!(seen(&picture), (width, height, Some(place)), "orientation {orientation}");
    }
    // An orientation that does not exist turns nothing.
    let picture = Picture::from_bytes(&oriented(&plain, 9)).unwrap();
    assert_eq!(seen(&picture), (48, 32, Some(0)));
}

#[test]
fn a_webp_is_read() {
    let picture = Picture::from_bytes(&webp(&quarter())).unwrap();
    assert_eq!((picture.rgb == quarter().into_raw(), picture.parameters), (true, None));
}

#[test]
fn damaged_files_are_errors() {
    // The last byte of a WebP may be padding.
    let (jpeg, webp) = (jpeg(&quarter()), webp(&quarter()));
    let camera = [&oriented(&jpeg, 6)[..], b"left behind the end"].concat();
    for (bytes, whole) in
        [(&jpeg, jpeg.len()), (&webp, webp.len() - 1), (&camera, camera.len() - 19)]
    {
        assert!(Picture::from_bytes(bytes).is_ok());
        for end in 0..whole {
            let error = Picture::from_bytes(&bytes[..end]).unwrap_err().to_string();
            assert!(error.starts_with("not a picture that can be read: "), "{end}: {error}");
        }
    }
    // The end of a preview within a segment is not the picture's.
    let preview = [&[0xff, 0xe2, 0, 6, 0xff, 0xd8, 0xff, 0xd9], &jpeg[2..]].concat();
    let preview = [&jpeg[..2], &preview].concat();
    assert!(Picture::from_bytes(&preview).is_ok());
    assert!(Picture::from_bytes(&preview[..preview.len() - 2]).is_err());
    let error = Picture::from_bytes(b"GIF89a, which is not supported").unwrap_err().to_string();
    assert!(error.contains("format"), "{error}");
}

/// A few bytes may not ask for gigabytes.
#[test]
fn sizes_that_cannot_be_are_refused_before_memory_is_taken() {
    let mut huge = jpeg(&quarter());
    let frame = huge.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    huge[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    let error = Picture::from_bytes(&huge).unwrap_err().to_string();
    assert!(error.contains("65535x65535"), "{error}");
}
