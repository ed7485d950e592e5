//! Cases of [`Session::run`](rockshard_device::Session::run).

use super::{ALWAYS, COMPUTES, CORE, Case, Subject, alone, open, refused, run, same};
use rockshard_device::{DeviceErrorKind, Session};
use rockshard_manifest::CoreId;
use rockshard_tensor::{DType, Tensor};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "outputs have the declared order, shapes and kinds",
        applies: ALWAYS,
        run: outputs,
    },
    Case { name: "another number of inputs is refused", applies: ALWAYS, run: other_number },
    Case {
        name: "an input of another shape is refused by name",
        applies: ALWAYS,
        run: other_shape,
    },
    Case { name: "an input of another type is refused by name", applies: ALWAYS, run: other_type },
    Case { name: "a refused run leaves the session usable", applies: ALWAYS, run: after_refusal },
    Case { name: "the same inputs give the same bytes again", applies: ALWAYS, run: again },
    Case { name: "every input counts", applies: ALWAYS, run: every_input },
    Case {
        name: "every output is a function of the inputs that it reads",
        applies: COMPUTES,
        run: only_what_is_read,
    },
    Case {
        name: "float16 inputs give what their values in float32 give",
        applies: ALWAYS,
        run: half,
    },
    Case { name: "inputs may lie at any address", applies: ALWAYS, run: unaligned },
    Case { name: "sessions of a shard do not mix", applies: ALWAYS, run: sessions },
    Case { name: "a session outlives the one opened before it", applies: ALWAYS, run: outlives },
    Case { name: "threads with a session each do not mix", applies: ALWAYS, run: threads },
    Case {
        name: "infinities and NaN pass through and end with the run",
        applies: COMPUTES,
        run: non_finite,
    },
    Case { name: "a modelled time is given always or never", applies: ALWAYS, run: modelled },
];

fn session(s: &Subject<'_>) -> Result<Box<dyn Session>, String> {
    open(s, &s.files.shard(), CORE)
}

fn outputs(s: &Subject<'_>) -> Result<(), String> {
    let (shard, found) = (s.files.shard(), alone(s, &s.files.inputs(0))?);
    let fits = found.len() == shard.outputs.len()
        && found.iter().zip(&shard.outputs).all(|(t, spec)| {
            t.shape() == spec.shape && t.dtype().is_float() == spec.dtype.is_float()
        });
    if fits { Ok(()) } else { Err(format!("{found:?} for {:?}", shard.outputs)) }
}

/// A run with these inputs is refused, naming `word`.
fn wrong(
    s: &Subject<'_>,
    session: &mut dyn Session,
    what: &str,
    inputs: &[Tensor],
    word: &str,
) -> Result<(), String> {
    refused(what, session.run(inputs), (&s.files.shard(), CORE), &[DeviceErrorKind::Input], &[word])
}

fn other_number(s: &Subject<'_>) -> Result<(), String> {
    let (mut session, mut inputs) = (session(s)?, s.files.inputs(0));
    inputs.push(inputs[0].clone());
    [0, 1, 2, 4].into_iter().try_for_each(|n| {
        wrong(s, &mut *session, &format!("{n} inputs of 3"), &inputs[..n], "takes 3 inputs")
    })
}

/// A run with one input replaced is refused, naming it.
fn replaced(
    s: &Subject<'_>,
    session: &mut dyn Session,
    at: usize,
    with: Tensor,
) -> Result<(), String> {
    let mut inputs = s.files.inputs(0);
    let what = format!("{with:?} for {:?}", inputs[at]);
    inputs[at] = with;
    wrong(s, session, &what, &inputs, &s.files.shard().inputs[at].name)
}

fn other_shape(s: &Subject<'_>) -> Result<(), String> {
    let mut session = session(s)?;
    for (at, spec) in s.files.shard().inputs.iter().enumerate() {
        let (mut turned, mut longer, flat) =
            (spec.shape.clone(), spec.shape.clone(), vec![spec.shape.iter().product()]);
        turned.reverse();
        longer[1] += 1;
        for shape in [turned, longer, flat, vec![]] {
            let count = shape.iter().product();
            replaced(s, &mut *session, at, Tensor::from_f32(shape, vec![0.0; count]))?;
        }
    }
    Ok(())
}

fn other_type(s: &Subject<'_>) -> Result<(), String> {
    let mut session = session(s)?;
    for (at, spec) in s.files.shard().inputs.iter().enumerate() {
        let (shape, count) = (spec.shape.clone(), spec.shape.iter().product());
        for tensor in [
            Tensor::from_i64(shape.clone(), vec![0; count]),
            Tensor::from_i32(shape.clone(), vec![0; count]),
            Tensor::from_bool(shape.clone(), vec![false; count]),
        ] {
            replaced(s, &mut *session, at, tensor)?;
        }
    }
    Ok(())
}

fn after_refusal(s: &Subject<'_>) -> Result<(), String> {
    let (mut session, inputs) = (session(s)?, s.files.inputs(0));
    let wanted = run(&mut *session, &inputs)?;
    wrong(s, &mut *session, "an input too few", &inputs[..2], "takes 3 inputs")?;
    replaced(s, &mut *session, 2, inputs[0].clone())?;
    same("after refused runs", &run(&mut *session, &inputs)?, &wanted)
}

fn again(s: &Subject<'_>) -> Result<(), String> {
    let mut session = session(s)?;
    let given = [0, 1, 2].map(|seed| s.files.inputs(seed));
    let mut wanted = Vec::new();
    for inputs in &given {
        wanted.push(run(&mut *session, inputs)?);
    }
    for at in [2, 0, 0, 1, 2, 1] {
        same(&format!("inputs {at}"), &run(&mut *session, &given[at])?, &wanted[at])?;
    }
    for (at, inputs) in given.iter().enumerate() {
        same(&format!("inputs {at} in a new session"), &alone(s, inputs)?, &wanted[at])?;
    }
    Ok(())
}

fn every_input(s: &Subject<'_>) -> Result<(), String> {
    let (mut session, first, other) = (session(s)?, s.files.inputs(0), s.files.inputs(1));
    let wanted = run(&mut *session, &first)?;
    for at in 0..first.len() {
        let mut inputs = first.clone();
        inputs[at] = other[at].clone();
        if run(&mut *session, &inputs)? == wanted {
            return Err(format!("another input {at} changes no output"));
        }
    }
    Ok(())
}

fn only_what_is_read(s: &Subject<'_>) -> Result<(), String> {
    let (mut session, first, other) = (session(s)?, s.files.inputs(0), s.files.inputs(1));
    let wanted = run(&mut *session, &first)?;
    // `scaled` reads the tokens, `sum` the others.
    for (replaced, output) in [(2, 1), (0, 0), (1, 0)] {
        let mut inputs = first.clone();
        inputs[replaced] = other[replaced].clone();
        let found = run(&mut *session, &inputs)?;
        same(
            &format!("output {output} with another input {replaced}"),
            &found[output..=output],
            &wanted[output..=output],
        )?;
        if found[1 - output] == wanted[1 - output] {
            return Err(format!("output {} does not change with input {replaced}", 1 - output));
        }
    }
    Ok(())
}

fn half(s: &Subject<'_>) -> Result<(), String> {
    let (mut session, inputs) = (session(s)?, s.files.inputs(0));
    let wanted = run(&mut *session, &inputs)?;
    let narrow = inputs
        .iter()
        .map(|t| t.to_float(DType::F16))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| e.to_string())?;
    same("float16 inputs", &run(&mut *session, &narrow)?, &wanted)?;
    let mixed = [narrow[0].clone(), inputs[1].clone(), narrow[2].clone()];
    same("inputs of both types", &run(&mut *session, &mixed)?, &wanted)
}

fn unaligned(s: &Subject<'_>) -> Result<(), String> {
    let (mut session, inputs) = (session(s)?, s.files.inputs(0));
    let wanted = run(&mut *session, &inputs)?;
    let shifted = |t: &Tensor| {
        let bytes: Vec<u8> = std::iter::once(&0).chain(t.bytes()).copied().collect();
        let all = Tensor::new(DType::Bool, vec![bytes.len()], bytes.into())?;
        Tensor::new(t.dtype(), t.shape().to_vec(), all.bytes().slice(1..))
    };
    let moved =
        inputs.iter().map(shifted).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    same("inputs at odd addresses", &run(&mut *session, &moved)?, &wanted)
}

fn sessions(s: &Subject<'_>) -> Result<(), String> {
    let cores = [0, 0, s.device.cores() - 1].map(CoreId::Npu);
    let given = [0, 1, 2].map(|seed| s.files.inputs(seed));
    let mut open_now = Vec::new();
    let mut wanted = Vec::new();
    for (core, inputs) in cores.into_iter().zip(&given) {
        open_now.push(open(s, &s.files.shard(), core)?);
        wanted.push(alone(s, inputs)?);
    }
    for at in [0, 1, 2, 2, 1, 0, 1] {
        same(&format!("session {at}"), &run(&mut *open_now[at], &given[at])?, &wanted[at])?;
    }
    Ok(())
}

fn outlives(s: &Subject<'_>) -> Result<(), String> {
    let inputs = s.files.inputs(0);
    let wanted = alone(s, &inputs)?;
    let (first, mut second) = (session(s)?, session(s)?);
    drop(first);
    same("after the first one closed", &run(&mut *second, &inputs)?, &wanted)?;
    let mut third = session(s)?;
    drop(second);
    same("after the second one closed", &run(&mut *third, &inputs)?, &wanted)
}

fn threads(s: &Subject<'_>) -> Result<(), String> {
    const RUNS: usize = 20;
    let shard = s.files.shard();
    let one = |n: u8, inputs: &[Tensor], wanted: &[Tensor]| -> Result<(), String> {
        let mut session = open(s, &shard, CoreId::Npu(n % s.device.cores()))?;
        (0..RUNS).try_for_each(|i| {
            same(&format!("thread {n}, run {i}"), &run(&mut *session, inputs)?, wanted)
        })
    };
    let given = [0, 1, 2, 3].map(|seed| s.files.inputs(seed));
    let wanted = given.iter().map(|inputs| alone(s, inputs)).collect::<Result<Vec<_>, _>>()?;
    std::thread::scope(|scope| {
        let one = &one;
        let work = (0..).zip(given.iter().zip(&wanted));
        let running: Vec<_> =
            work.map(|(n, (inputs, wanted))| scope.spawn(move || one(n, inputs, wanted))).collect();
        running.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))
        })
    })
}

fn non_finite(s: &Subject<'_>) -> Result<(), String> {
    let (mut session, inputs) = (session(s)?, s.files.inputs(0));
    let wanted = run(&mut *session, &inputs)?;
    for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        // The residual is added to the second output where it lies.
        let mut values = inputs[1].to_f32().map_err(|e| e.to_string())?.into_owned();
        values[70] = value;
        let given =
            [inputs[0].clone(), Tensor::from_f32(inputs[1].shape(), values), inputs[2].clone()];
        let found = run(&mut *session, &given)?;
        let sum = found[1].to_f32().map_err(|e| e.to_string())?;
        if sum[70].to_bits() != value.to_bits() && !(sum[70].is_nan() && value.is_nan()) {
            return Err(format!("{value} becomes {}", sum[70]));
        }
        if let Some(at) = (0..sum.len()).find(|&at| at != 70 && !sum[at].is_finite()) {
            return Err(format!("{value} at 70 makes {} at {at}", sum[at]));
        }
        same("the output that does not read it", &found[..1], &wanted[..1])?;
    }
    same("the run after", &run(&mut *session, &inputs)?, &wanted)
}

fn modelled(s: &Subject<'_>) -> Result<(), String> {
    let mut session = session(s)?;
    for seed in 0..3 {
        let done = session.run(&s.files.inputs(seed)).map_err(|e| e.to_string())?;
        if done.modelled.is_some_and(|time| !time.is_zero()) != s.facts.models_time {
            return Err(format!("run {seed} is modelled to take {:?}", done.modelled));
        }
    }
    Ok(())
}
