//! The suite of `rockshard_device::conformance` on the NPU through librknnrt: `rknnrt-sim`, which the tests' dependency on it builds
//! beside them.

use rockshard_device_kit::conformance::{Facts, Files, Subject, check};
use rockshard_device_rknn::RknnDevice;
use std::path::Path;

#[test]
fn the_npu_through_librknnrt_conforms() {
    let beside = std::env::current_exe().unwrap().with_file_name("librknnrt.so");
    let device = RknnDevice::load(Some(&beside)).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance-rknn");
    let graphs = Files::write(&folder).unwrap();
    // The double looks at what is in a file, not at its name, so this stands for a compiled shard.
    std::fs::copy(folder.join("shard.onnx"), folder.join("shard.rknn")).unwrap();
    let compiled = Files::compiled(&folder).unwrap();
    for device in [&device, &device.clone().copying()] {
        for files in [&graphs, &compiled] {
            let facts = Facts {
                computes: true,
                host: false,
                integers: false,
                by_name: false,
                models_time: true,
            };
            let outcome = check(&Subject { device, files, facts });
            assert!(outcome.failed.is_empty(), "{:#?}", outcome.failed);
            assert_eq!((outcome.passed.len(), outcome.ruled_out.len()), (33, 3), "{outcome:#?}");
        }
    }
}
