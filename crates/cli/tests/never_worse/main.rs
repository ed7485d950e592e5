//! `--sandwich auto` on random graphs: on the inputs that it was calibrated on, the simulator is never further from the reference than
//! without scaling, and what the manifest says was lost is what is lost.

mod graphs;

use graphs::random_graph;
use rockshard::{
    ConvertRequest, CoresOptions, DeviceName, Mode, Pack, RunOptions, Sandwich, TensorMap,
};
use rockshard_tensor::Tensor;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const GRAPHS: usize = 2000;
/// What may be lost to `off` where both are as good as float16 gets.
const NOISE: f64 = 1e-3;
const SLACK: f64 = 1.2;

fn devices(name: DeviceName) -> rockshard::Cores {
    let devices = rockshard::open_devices(name).unwrap();
    rockshard::take_cores_with(&devices, CoresOptions::new(1)).unwrap()
}

/// Convert a file; gives the pack.
fn converted(file: &Path, out: &Path, sandwich: Sandwich, inputs: &TensorMap) -> Pack {
    let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
    let request = ConvertRequest {
        sandwich,
        calibration: [(name, vec![inputs.clone()])].into(),
        ..ConvertRequest::new(file, out)
    };
    rockshard::convert(request, &mut |_| ControlFlow::Continue(())).unwrap();
    Pack::open(out).unwrap()
}

/// Nothing where a weight is beyond float16.
fn outputs(cores: &rockshard::Cores, pack: &Pack, inputs: &TensorMap) -> Option<TensorMap> {
    let loaded = match cores.load(pack, Mode::Pipeline, |_| true) {
        Err(e) if e.to_string().contains("float16 cannot hold") => return None,
        loaded => loaded.unwrap(),
    };
    let name = loaded.models().next().unwrap().name.clone();
    let outcome = loaded.run(&name, vec![inputs.clone()], &RunOptions::default()).unwrap();
    outcome.outputs.unwrap().pop()
}

/// The largest relative L2 distance of an output; infinite where one is not finite, or there is none.
fn distance(found: Option<&TensorMap>, truth: &TensorMap) -> f64 {
    let Some(found) = found else { return f64::INFINITY };
    let one = |(name, truth): (&String, &Tensor)| {
        let (a, b) = (found[name].to_f32().unwrap(), truth.to_f32().unwrap());
        let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
            a.iter().zip(b.iter()).map(|(&a, &b)| f(f64::from(a), f64::from(b))).sum()
        };
        let (difference, size) = (sum(&|a, b| (a - b).powi(2)), sum(&|_, b| b * b));
        let distance = (difference / size.max(f64::MIN_POSITIVE)).sqrt();
        if difference == 0.0 {
            0.0
        } else if distance.is_finite() {
            distance
        } else {
            f64::INFINITY
        }
    };
    truth.iter().map(one).fold(0.0, f64::max)
}

/// Share of a value's elements that float16 overflowed, flushed or made subnormal as it was stored.
fn lost(value: &Tensor, scale: f32, truth: &Tensor) -> f32 {
    const SMALLEST_NORMAL: f32 = 6.103_515_6e-5;
    let (a, b) = (value.to_f32().unwrap(), truth.to_f32().unwrap());
    let outside = |v: f32| !(v * scale).is_finite() || (v * scale).abs() < SMALLEST_NORMAL;
    let count = a.iter().filter(|&&v| outside(v)).count();
    let zeros = b.iter().filter(|&&v| v == 0.0).count();
    count.saturating_sub(zeros) as f32 / a.len() as f32
}

/// What one graph comes to.
struct Found {
    scaled: bool,
    helped: bool,
    claims: usize,
}

fn judge(
    seed: u64,
    folder: &Path,
    sim: &rockshard::Cores,
    cpu: &rockshard::Cores,
    wrong: &Mutex<Vec<String>>,
) -> Option<Found> {
    let say = |text: String| wrong.lock().unwrap().push(format!("graph {seed}: {text}"));
    let (graph, input) = random_graph(seed);
    let file = folder.join("model.onnx");
    rockshard_converter::write_onnx(&graph, &file).unwrap();
    let inputs: TensorMap = [("x".to_owned(), input)].into();
    let off = converted(&file, &folder.join("off"), Sandwich::Off, &inputs);
    let truth = outputs(cpu, &off, &inputs)?;
    // A reference that is not finite judges nothing.
    if truth.values().any(|t| t.to_f32().unwrap().iter().any(|v| !v.is_finite())) {
        return None;
    }
    let auto = converted(&file, &folder.join("auto"), Sandwich::Auto, &inputs);
    let (plain, scaled) = (outputs(sim, &off, &inputs), outputs(sim, &auto, &inputs));
    let [without, with] = [&plain, &scaled].map(|found| distance(found.as_ref(), &truth));
    if with > SLACK * without.max(NOISE) {
        say(format!("{with:.2e} with auto, {without:.2e} without"));
    }
    let mut claims = 0;
    let (plain, scaled) = (plain.unwrap_or_default(), scaled.unwrap_or_default());
    for shard in &auto.manifest().models[0].shards {
        for region in &shard.sandwich {
            let Some(expected) = truth.get(&region.worst_value) else { continue };
            let (Some(plain), Some(scaled)) =
                (plain.get(&region.worst_value), scaled.get(&region.worst_value))
            else {
                continue;
            };
            let before = lost(plain, 1.0, expected);
            let after = lost(scaled, region.factor, expected);
            for (said, is) in [(region.lost_before, before), (region.lost_after, after)] {
                if (said - is).abs() > 2e-2 {
                    say(format!("{region:?} says {said}, it is {is}"));
                }
            }
            claims += 1;
        }
    }
    let regions = auto.manifest().models[0].shards.iter().any(|s| !s.sandwich.is_empty());
    Some(Found { scaled: regions, helped: with < without / 2.0, claims })
}

#[test]
#[ignore = "a quarter of a minute and more: .ci/run asks for it"]
fn auto_is_never_worse_than_off_and_says_what_it_measured() {
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let totals: [AtomicUsize; 4] = Default::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (sim, cpu) = (devices(DeviceName::Sim), devices(DeviceName::Cpu));
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= GRAPHS {
                        break;
                    }
                    let folder = tempfile::tempdir().unwrap();
                    let Some(found) = judge(seed as u64, folder.path(), &sim, &cpu, &wrong) else {
                        continue;
                    };
                    let counted = [1, found.scaled.into(), found.helped.into(), found.claims];
                    for (total, count) in totals.iter().zip(counted) {
                        total.fetch_add(count, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let [judged, scaled, helped, claims] = totals.map(AtomicUsize::into_inner);
    eprintln!(
        "{judged} graphs judged, {scaled} scaled, {helped} at least twice as near, {claims} claims checked"
    );
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // The property must not hold for want of anything to judge.
    assert!(judged > GRAPHS * 9 / 10 && scaled > GRAPHS / 4 && helped > GRAPHS / 8 && claims > 50);
}
