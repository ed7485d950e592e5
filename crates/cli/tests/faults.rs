//! Faults around the simulated NPU: the bundled U-Net's values are those of a run without them.

mod common;

use common::Work;
use rockshard_device::DeviceErrorKind;
use rockshard_device_cpu::CpuDevice;
use rockshard_device_kit::{Fault, FaultyDevice};
use rockshard_device_sim::SimDevice;
use rockshard_pack::{Devices, Mode, Pack, Variant};
use rockshard_runtime::{Cores, CoresOptions, RunOptions};
use rockshard_validation::random_inputs;
use std::sync::Arc;

#[test]
fn the_simulator_with_faults_gives_what_it_gives_without() {
    let work = Work::new();
    work.convert(&work.path("pack"), &["--shards", "block"]);
    let pack = Pack::open(&work.path("pack")).unwrap();
    let inputs = random_inputs(&pack.manifest().model("unet", None).unwrap().inputs, 1);
    let sim = Devices {
        npu: Arc::new(SimDevice::default()),
        host: Arc::new(CpuDevice::new()),
        variant: Variant::Device,
    };
    let run = |devices: &Devices| {
        let cores = Cores::new(devices, CoresOptions::new(3)).unwrap();
        let loaded = cores.load(&pack, Mode::Pipeline, |m| m.name == "unet").unwrap();
        let outcome = loaded.run("unet", vec![inputs.clone(); 2], &RunOptions::default()).unwrap();
        let incidents = loaded.incidents().len() + outcome.trace.incidents.len();
        (outcome.outputs.unwrap(), incidents)
    };
    let (expected, none) = run(&sim);
    assert_eq!(none, 0);
    for seed in 0..3 {
        let faulty = FaultyDevice::new(sim.npu.clone());
        let kinds = [DeviceErrorKind::Memory, DeviceErrorKind::Run].map(Fault::Open);
        faulty.inject_randomly(
            seed,
            &[
                (kinds[0], 50),
                (kinds[1], 50),
                (Fault::Run(DeviceErrorKind::Run), 100),
                (Fault::Glitch, 100),
            ],
        );
        let (found, incidents) = run(&Devices { npu: Arc::new(faulty), ..sim.clone() });
        assert!(found == expected && incidents > 0, "seed {seed}: {incidents} incidents");
    }
}
