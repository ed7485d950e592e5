//! Cases of [`Session::run_between`](rockshard_device::Session::run_between).

use super::{ALWAYS, CORE, Case, Subject, alone, open, refused};
use rockshard_device::{DeviceErrorKind, Kept, Session, Value};
use rockshard_manifest::CoreId;
use rockshard_tensor::{DType, Tensor};
use std::sync::Arc;

pub(super) const CASES: &[Case] = &[
    Case { name: "kept outputs have the values that the host gets", applies: ALWAYS, run: values },
    Case {
        name: "a session takes what a session of any core kept",
        applies: ALWAYS,
        run: handed_on,
    },
    Case { name: "kept outputs stay as they were while sessions run", applies: ALWAYS, run: stay },
    Case { name: "kept outputs outlive their session", applies: ALWAYS, run: outlive },
    Case { name: "threads hand kept outputs to each other", applies: ALWAYS, run: threads },
    Case {
        name: "a kept input of another shape is refused by name",
        applies: ALWAYS,
        run: other_shape,
    },
    Case { name: "what another device kept is taken", applies: ALWAYS, run: foreign },
];

fn session(s: &Subject<'_>, core: CoreId) -> Result<Box<dyn Session>, String> {
    open(s, &s.files.shard(), core)
}

fn run(session: &mut dyn Session, inputs: &[Value]) -> Result<Vec<Value>, String> {
    session
        .run_between(inputs, &[true, true])
        .map(|done| done.outputs)
        .map_err(|e| format!("a run between others fails: {e}"))
}

fn given(s: &Subject<'_>, seed: usize) -> Vec<Value> {
    s.files.inputs(seed).into_iter().map(Value::Host).collect()
}

/// The same numbers, whichever type they have.
fn same(what: &str, found: &[Value], wanted: &[Tensor]) -> Result<(), String> {
    let numbers = |t: &Tensor| t.to_float(DType::F32).map_err(|e| e.to_string());
    let found = found.iter().map(|v| numbers(&v.tensor())).collect::<Result<Vec<_>, _>>()?;
    let wanted = wanted.iter().map(numbers).collect::<Result<Vec<_>, _>>()?;
    if found == wanted { Ok(()) } else { Err(format!("{what}: other values")) }
}

/// Inputs that are the outputs of a run: the shard's outputs have the shapes of its inputs.
fn follow<T: Clone>(outputs: &[T], residual: T) -> Vec<T> {
    vec![outputs[1].clone(), residual, outputs[0].clone()]
}

fn values(s: &Subject<'_>) -> Result<(), String> {
    let mut session = session(s, CORE)?;
    for seed in 0..3 {
        let wanted = alone(s, &s.files.inputs(seed))?;
        same("kept", &run(&mut *session, &given(s, seed))?, &wanted)?;
        for keep in [[true, false], [false, true], [false, false]] {
            let outputs =
                session.run_between(&given(s, seed), &keep).map_err(|e| e.to_string())?.outputs;
            if outputs
                .iter()
                .zip(keep)
                .any(|(output, keep)| !keep && matches!(output, Value::Kept(_)))
            {
                return Err(format!("an output is kept where {keep:?} was asked for"));
            }
            same("kept in part", &outputs, &wanted)?;
        }
    }
    Ok(())
}

fn handed_on(s: &Subject<'_>) -> Result<(), String> {
    let residual = s.files.inputs(5).swap_remove(1);
    for core in (0..s.device.cores()).map(CoreId::Npu) {
        let (mut first, mut second) = (session(s, CORE)?, session(s, core)?);
        // The second round finds the sessions used.
        for seed in 0..3 {
            let made = run(&mut *first, &given(s, seed))?;
            let wanted = alone(s, &follow(&alone(s, &s.files.inputs(seed))?, residual.clone()))?;
            let following = follow(&made, Value::Host(residual.clone()));
            same(&format!("on {core}"), &run(&mut *second, &following)?, &wanted)?;
            same("in the session that kept them", &run(&mut *first, &following)?, &wanted)?;
        }
    }
    Ok(())
}

fn stay(s: &Subject<'_>) -> Result<(), String> {
    let (mut one, mut other) = (session(s, CORE)?, session(s, CORE)?);
    let mut kept = Vec::new();
    for seed in 0..4 {
        kept.push(run(&mut *one, &given(s, seed))?);
        run(&mut *other, &given(s, seed + 4))?;
    }
    for (seed, kept) in kept.iter().enumerate() {
        same(&format!("run {seed}"), kept, &alone(s, &s.files.inputs(seed))?)?;
    }
    Ok(())
}

fn outlive(s: &Subject<'_>) -> Result<(), String> {
    let mut first = session(s, CORE)?;
    let kept = run(&mut *first, &given(s, 0))?;
    drop(first);
    let wanted = alone(s, &s.files.inputs(0))?;
    same("read after", &kept, &wanted)?;
    let residual = s.files.inputs(5).swap_remove(1);
    let wanted = alone(s, &follow(&wanted, residual.clone()))?;
    same(
        "taken after",
        &run(&mut *session(s, CORE)?, &follow(&kept, Value::Host(residual)))?,
        &wanted,
    )
}

fn threads(s: &Subject<'_>) -> Result<(), String> {
    const RUNS: usize = 20;
    let residual = s.files.inputs(5).swap_remove(1);
    let last = CoreId::Npu(s.device.cores() - 1);
    let (sender, receiver) = std::sync::mpsc::sync_channel(2);
    std::thread::scope(|scope| {
        let make = move || {
            let mut session = session(s, CORE)?;
            for seed in 0..RUNS {
                if sender.send(run(&mut *session, &given(s, seed))?).is_err() {
                    break;
                }
            }
            Ok(())
        };
        let made = scope.spawn(make);
        let mut second = session(s, last)?;
        // A case that fails here drops the receiver, which ends the other thread.
        for (seed, kept) in receiver.into_iter().enumerate() {
            let wanted = alone(s, &follow(&alone(s, &s.files.inputs(seed))?, residual.clone()))?;
            same(
                &format!("run {seed}"),
                &run(&mut *second, &follow(&kept, Value::Host(residual.clone())))?,
                &wanted,
            )?;
        }
        made.join().unwrap_or_else(|_| Err("a thread panicked".into()))
    })
}

fn other_shape(s: &Subject<'_>) -> Result<(), String> {
    let (mut session, mut inputs) = (session(s, CORE)?, given(s, 0));
    let kept = run(&mut *session, &inputs)?;
    inputs[0] = kept[0].clone();
    let result = session.run_between(&inputs, &[true, true]);
    refused(
        "a kept input of another shape",
        result,
        (&s.files.shard(), CORE),
        &[DeviceErrorKind::Input],
        &["image"],
    )
}

/// A tensor on a device that nobody knows.
struct Elsewhere(Tensor);

impl Kept for Elsewhere {
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn stored(&self) -> (DType, &[u8]) {
        (self.0.dtype(), self.0.bytes())
    }

    fn read(&self) -> Tensor {
        self.0.clone()
    }
}

fn foreign(s: &Subject<'_>) -> Result<(), String> {
    let inputs = s
        .files
        .inputs(0)
        .into_iter()
        .map(|t| Value::Kept(Arc::new(Elsewhere(t))))
        .collect::<Vec<_>>();
    same(
        "all inputs from elsewhere",
        &run(&mut *session(s, CORE)?, &inputs)?,
        &alone(s, &s.files.inputs(0))?,
    )
}
