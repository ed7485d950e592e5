//! The suite of `rockshard_device::conformance` on the reference.

use rockshard_device_cpu::CpuDevice;
use rockshard_device_kit::conformance::{Facts, Files, Subject, check};
use std::path::Path;

#[test]
fn the_reference_conforms() {
    let files =
        Files::write(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance-cpu")).unwrap();
    let facts =
        Facts { computes: true, host: true, integers: true, by_name: true, models_time: false };
    let outcome = check(&Subject { device: &CpuDevice::new(), files: &files, facts });
    assert!(outcome.failed.is_empty(), "{:#?}", outcome.failed);
    assert_eq!((outcome.passed.len(), outcome.ruled_out.len()), (33, 3), "{outcome:#?}");
}
