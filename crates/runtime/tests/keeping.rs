//! Which values stay on the device between shards, and for how long.

mod common;

use common::{items, load, run};
use rockshard_device::{Completion, Device, DeviceError, Session, ShardFile, Value};
use rockshard_device_kit::MockDevice;
use rockshard_device_kit::packs::{devices, model, pack_of, shard, spec};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_pack::Mode;
use rockshard_tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// The mock, and the values that its shards took kept.
#[derive(Clone)]
struct Watched {
    mock: MockDevice,
    taken: Arc<Mutex<BTreeMap<String, bool>>>,
}

struct WatchedSession {
    inner: Box<dyn Session>,
    inputs: Vec<TensorSpec>,
    taken: Arc<Mutex<BTreeMap<String, bool>>>,
}

impl Device for Watched {
    fn name(&self) -> &'static str {
        "watched"
    }

    fn cores(&self) -> u8 {
        3
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        let inner = self.mock.open(shard, core)?;
        Ok(Box::new(WatchedSession {
            inner,
            inputs: shard.inputs.clone(),
            taken: self.taken.clone(),
        }))
    }
}

impl Session for WatchedSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        self.inner.run(inputs)
    }

    fn run_between(
        &mut self,
        inputs: &[Value],
        keep: &[bool],
    ) -> Result<Completion<Value>, DeviceError> {
        for (spec, input) in self.inputs.iter().zip(inputs) {
            let kept = matches!(input, Value::Kept(_));
            let before = self.taken.lock().unwrap().insert(spec.name.clone(), kept);
            // A reader at another scale gets it multiplied, which happens on the host.
            assert!(before.is_none_or(|before| before == kept), "{}", spec.name);
        }
        self.inner.run_between(inputs, keep)
    }
}

#[test]
fn values_stay_that_only_the_npu_reads_at_one_scale() {
    let npu = |n| CoreId::Npu(n);
    let scaled = |name: &str, scale: f32| TensorSpec { scale, ..spec(name) };
    let mut shards = vec![
        shard("s1".into(), npu(0), vec![spec("v0")], "same core"),
        shard("s2".into(), npu(0), vec![spec("same core")], "other core"),
        shard("s3".into(), npu(1), vec![spec("other core"), spec("same core")], "for the host"),
        shard("s4".into(), CoreId::Host, vec![spec("for the host")], "from the host"),
        shard("s5".into(), npu(2), vec![spec("from the host"), spec("for the host")], "scaled"),
        shard("s6".into(), npu(2), vec![scaled("scaled", 0.25)], "rescaled"),
        shard("s7".into(), npu(0), vec![scaled("scaled", 0.5), spec("rescaled")], "read and given"),
        shard("s8".into(), npu(1), vec![spec("read and given")], "last"),
    ];
    shards[4].outputs[0].scale = 0.25;
    let mut whole = model("m", shards, "last");
    whole.outputs.push(spec("read and given"));
    let stay = BTreeSet::from(["same core", "other core", "rescaled"]);
    assert_eq!(whole.device_values(), stay);

    let (_folder, pack) = pack_of(vec![whole]);
    let host = load(&pack, &devices(&Host(MockDevice::new(3))), 3, Mode::Pipeline).unwrap();
    let host_only = run(&host, items(7)).outputs.unwrap();
    for mode in [Mode::Pipeline, Mode::Replicate] {
        let watched = Watched { mock: MockDevice::new(3), taken: Arc::default() };
        let loaded = load(&pack, &devices(&watched), 3, mode).unwrap();
        assert_eq!(run(&loaded, items(7)).outputs.unwrap(), host_only);
        let taken = watched.taken.lock().unwrap();
        let kept: BTreeSet<&str> =
            taken.iter().filter(|(_, kept)| **kept).map(|(name, _)| name.as_str()).collect();
        assert_eq!(kept, stay);
        assert_eq!(watched.mock.kept(), 0, "values end with their last reader");
    }
}

/// The mock without a memory of its own.
#[derive(Clone)]
struct Host(MockDevice);

struct HostSession(Box<dyn Session>);

impl Device for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn cores(&self) -> u8 {
        3
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        Ok(Box::new(HostSession(self.0.open(shard, core)?)))
    }
}

impl Session for HostSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        self.0.run(inputs)
    }
}
