//! PNG files: parameters go in and come out, bytes are stable, writing is all or nothing.

use proptest::prelude::*;
use rockshard_diffusion::{Parameters, Picture, PictureError};

fn parameters(prompt: &str) -> Parameters {
    Parameters {
        prompt: prompt.into(),
        negative_prompt: Some("blurry".into()),
        steps: 4,
        sampler: "LCM".into(),
        guidance: 1.5,
        seed: u64::MAX,
        width: 3,
        height: 2,
        model: "tiny-lcm".into(),
        strength: Some(0.5),
        version: "0.1.0".into(),
    }
}

fn picture(prompt: &str) -> Picture {
    Picture {
        width: 3,
        height: 2,
        rgb: (0..18).map(|v| v * 14).collect(),
        parameters: Some(parameters(prompt)),
    }
}

#[test]
fn text_chunks_hold_the_parameters() {
    let bytes = picture("a red circle").to_png().unwrap();
    let reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
    let text = &reader.info().uncompressed_latin1_text;
    assert_eq!(text[0].keyword, "parameters");
    assert_eq!(
        text[0].text,
        "a red circle\nNegative prompt: blurry\nSteps: 4, Sampler: LCM, CFG scale: 1.5, Seed: 18446744073709551615, Size: 3x2, \
         Model: tiny-lcm, Denoising strength: 0.5, Version: rockshard 0.1.0"
    );
    assert_eq!(text[1].keyword, "rockshard");
    assert_eq!(
        serde_json::from_str::<Parameters>(&text[1].text).unwrap(),
        parameters("a red circle")
    );
    assert_eq!(bytes, picture("a red circle").to_png().unwrap());
}

#[test]
fn saving_replaces_the_file_or_leaves_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.png");
    std::fs::write(&path, "old").unwrap();
    let wrong = Picture { rgb: vec![0; 17], ..picture("x") };
    assert!(matches!(wrong.save(&path), Err(PictureError::Size { expected: 18, found: 17, .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    picture("猫 🐈").save(&path).unwrap();
    assert_eq!(Picture::from_bytes(&std::fs::read(&path).unwrap()).unwrap(), picture("猫 🐈"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let missing = folder.path().join("no/out.png");
    assert!(picture("x").save(&missing).unwrap_err().to_string().contains("no/out.png"));
    std::fs::create_dir(folder.path().join("dir.png")).unwrap();
    assert!(matches!(
        picture("x").save(&folder.path().join("dir.png")),
        Err(PictureError::Write { .. })
    ));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn damaged_files_are_errors() {
    let bytes = picture("a").to_png().unwrap();
    for end in 0..bytes.len() - 12 {
        assert!(
            matches!(Picture::from_bytes(&bytes[..end]), Err(PictureError::Decode(_))),
            "cut at {end}"
        );
    }
    assert!(Picture::from_bytes(b"not a picture").is_err());
    // A header that claims 65535x65535 pixels.
    let mut huge = png_header(65535, 65535);
    huge.extend_from_slice(&bytes[33..]);
    assert!(Picture::from_bytes(&huge).is_err());
}

fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    drop(encoder.write_header().unwrap());
    out.truncate(33);
    out
}

#[test]
fn planes_and_bytes_agree() {
    let original = Picture { parameters: None, ..picture("") };
    assert_eq!(Picture::from_planes(3, 2, &original.planes()), original);
    let clipped = Picture::from_planes(1, 1, &[-3.0, 0.0, f32::INFINITY]);
    assert_eq!(clipped.rgb, [0, 128, 255]);
    let resized = Picture { width: 4, height: 4, rgb: [10, 200, 30].repeat(16), parameters: None }
        .resized(9, 2);
    assert_eq!((resized.width, resized.height, resized.rgb), (9, 2, [10, 200, 30].repeat(18)));
}

proptest! {
    #[test]
    fn any_prompt_comes_back(prompt in any::<String>(), hundredths in -10_000i32..10_000) {
        let mut original = picture(&prompt);
        original.parameters.as_mut().unwrap().guidance = f64::from(hundredths) / 100.0;
        prop_assert_eq!(Picture::from_bytes(&original.to_png().unwrap()).unwrap(), original);
    }
}

/// Whatever a file has, a picture is 8-bit RGB, upright: the same scene, red at the left and blue at the right, as each format has it.
#[test]
fn files_of_every_kind_are_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pictures");
    for (file, off) in [
        ("alpha.png", 0),
        ("sixteen_bit.png", 0),
        ("plain.webp", 0),
        ("exif_6.jpg", 12),
        // Without a colour profile the conversion from CMYK is the plain one, as Pillow's.
        ("cmyk.jpg", 12),
    ] {
        let picture = Picture::from_bytes(&std::fs::read(folder.join(file)).unwrap()).unwrap();
        assert_eq!((picture.width, picture.height), (24, 8), "{file}");
        let pixel = |x: usize| &picture.rgb[(4 * 24 + x) * 3..][..3];
        for (x, colour) in [(4, [200u8, 30, 30]), (19, [30, 40, 190])] {
            let close = pixel(x).iter().zip(colour).all(|(&a, b)| a.abs_diff(b) <= off);
            assert!(close, "{file} at {x}: {:?}", pixel(x));
        }
    }
    let grey = Picture::from_bytes(&std::fs::read(folder.join("grey.png")).unwrap()).unwrap();
    assert!(grey.rgb.iter().all(|&v| v == 120));
}
