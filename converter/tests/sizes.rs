//! Sizes that a network cannot have are refused by what its graph asks for, before anything is calibrated or written.

use rockshard_converter::{ConvertError, ConvertRequest, Engines, convert};
use rockshard_cost::Rk3588;
use rockshard_device::{Device, DeviceError, Session, ShardFile};
use rockshard_manifest::CoreId;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A reference that must not be asked.
struct Never;

impl Device for Never {
    fn name(&self) -> &'static str {
        "never"
    }

    fn cores(&self) -> u8 {
        1
    }

    fn open(&self, _: &ShardFile, _: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        unreachable!("nothing is calibrated")
    }
}

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shards/tiny-lcm")
}

fn refused(of: impl FnOnce(&mut ConvertRequest)) -> ConvertError {
    let folder = tempfile::tempdir().unwrap();
    let mut request = ConvertRequest::new(bundled(), folder.path().join("pack"));
    of(&mut request);
    let told = &mut |progress| panic!("{progress:?} before the refusal");
    let error =
        convert(&request, Engines { reference: &Never, simulator: &Never }, told).unwrap_err();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{error}: left files");
    error
}

#[test]
fn the_graph_says_what_sides_must_be_divisible_by() {
    let table = [
        // No multiple of what the VAE halves.
        ([100, 128], "unet needs width and height divisible by 32", "96x128 and 128x128"),
        // One, but not of what the U-Net halves and doubles again.
        ([128, 136], "unet needs width and height divisible by 32", "128x128 and 128x160"),
        ([65, 65], "unet needs width and height divisible by 32", "64x64 and 96x96"),
    ];
    for ([width, height], why, near) in table {
        let error = refused(|r| r.resolutions = vec![[128, 128], [width, height]]).to_string();
        let start = format!("resolution {width}x{height}: {why}");
        assert!(error.contains(&start) && error.contains(near), "{error}");
    }
}

#[test]
fn an_axis_that_bands_do_not_help_is_refused_first() {
    let narrow = Rk3588 { largest_extent: 20, ..Rk3588::default() };
    let error = refused(|r| r.chip = narrow);
    assert!(matches!(error, ConvertError::Limit { .. }), "{error}");
    assert!(error.to_string().contains("has an axis longer than 20"), "{error}");
}

/// Only its tokens are too many: they are put in bands.
#[test]
fn tokens_alone_are_no_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut request = ConvertRequest::new(bundled(), folder.path().join("pack"));
    request.sandwich = rockshard_converter::options::Sandwich::Off;
    request.chip = Rk3588 { largest_extent: 200, ..Rk3588::default() };
    request.resolutions = vec![[128, 128]];
    let manifest = convert(&request, Engines { reference: &Never, simulator: &Never }, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let unet = manifest.models.iter().find(|m| m.name == "unet").unwrap();
    let blocks = |shard: &&rockshard_manifest::Shard| !shard.attention.is_empty();
    assert!(unet.shards.iter().filter(blocks).count() >= 2, "a shard for each transformer");
}
