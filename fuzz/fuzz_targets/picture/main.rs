#![no_main]
//! Any bytes are refused with a message, or are an image of the size that is allowed.

use libfuzzer_sys::fuzz_target;
use rockshard_image_file::{LONGEST_SIDE, MOST_PIXELS, decode};

fuzz_target!(|data: &[u8]| {
    match decode(data) {
        Ok(image) => {
            let (width, height) = (image.width(), image.height());
            assert!(width > 0 && height > 0 && width.max(height) <= LONGEST_SIDE);
            assert!(u64::from(width) * u64::from(height) <= MOST_PIXELS);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
