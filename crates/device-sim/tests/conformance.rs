//! The suite of `rockshard_device::conformance` on the simulator.

use rockshard_device::conformance::{Facts, Files, Subject, check};
use rockshard_device_sim::SimDevice;
use std::path::Path;

#[test]
fn the_simulator_conforms() {
    let files = Files::write(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance-sim")).unwrap();
    let facts = Facts { computes: true, host: false, integers: false, by_name: false, models_time: true };
    let outcome = check(&Subject { device: &SimDevice::default(), files: &files, facts });
    assert!(outcome.failed.is_empty(), "{:#?}", outcome.failed);
    assert_eq!((outcome.passed.len(), outcome.ruled_out.len()), (26, 3), "{outcome:#?}");
}
