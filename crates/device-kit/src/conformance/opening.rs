//! Cases of [`Device::open`](rockshard_device::Device::open).

use super::{ALWAYS, COMPUTES, CORE, Case, Subject, open, refused, run, same};
use rockshard_device::{DeviceErrorKind, ShardFile};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::{DType, Tensor};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a shard opens on every core and gives the same there",
        applies: ALWAYS,
        run: every_core,
    },
    Case { name: "a core that the device has not is refused", applies: ALWAYS, run: no_such_core },
    Case { name: "the host is refused", applies: |f| !f.host, run: no_host },
    Case { name: "the host gives what a core gives", applies: |f| f.host, run: host },
    Case { name: "a file that is not there is not loaded", applies: COMPUTES, run: missing_file },
    Case { name: "a file that is no model is not loaded", applies: COMPUTES, run: broken_files },
    Case {
        name: "a boundary that is not the model's is not loaded",
        applies: COMPUTES,
        run: other_boundary,
    },
    Case {
        name: "another order, or fewer outputs, are not loaded",
        applies: |f| f.computes && !f.by_name,
        run: other_order,
    },
    Case {
        name: "another order, or fewer outputs, are followed by name",
        applies: |f| f.computes && f.by_name,
        run: by_name,
    },
    Case {
        name: "a shard that reads integers is refused",
        applies: |f| f.computes && !f.integers,
        run: no_integers,
    },
    Case {
        name: "a shard that reads integers gives their rows",
        applies: |f| f.computes && f.integers,
        run: integers,
    },
    Case { name: "a scale of the manifest changes nothing", applies: ALWAYS, run: scale },
    Case { name: "a failed open leaves the device usable", applies: COMPUTES, run: after_failure },
    Case { name: "200 sessions open and close and leave nothing open", applies: ALWAYS, run: many },
];

fn every_core(s: &Subject<'_>) -> Result<(), String> {
    let inputs = s.files.inputs(0);
    let wanted = super::alone(s, &inputs)?;
    if s.device.cores() == 0 || s.device.name().is_empty() {
        return Err("the device has no core or no name".into());
    }
    for core in (0..s.device.cores()).map(CoreId::Npu) {
        same(&core.to_string(), &run(&mut *open(s, &s.files.shard(), core)?, &inputs)?, &wanted)?;
    }
    Ok(())
}

fn no_such_core(s: &Subject<'_>) -> Result<(), String> {
    let shard = s.files.shard();
    for core in [s.device.cores(), u8::MAX].map(CoreId::Npu) {
        refused(
            &core.to_string(),
            s.device.open(&shard, core),
            (&shard, core),
            &[DeviceErrorKind::Unavailable],
            &["cores"],
        )?;
    }
    Ok(())
}

fn no_host(s: &Subject<'_>) -> Result<(), String> {
    let shard = s.files.shard();
    let opened = s.device.open(&shard, CoreId::Host);
    refused(
        "a host shard",
        opened,
        (&shard, CoreId::Host),
        &[DeviceErrorKind::Unavailable],
        &["host", "CPU device"],
    )
}

fn host(s: &Subject<'_>) -> Result<(), String> {
    let inputs = s.files.inputs(0);
    same(
        "host",
        &run(&mut *open(s, &s.files.shard(), CoreId::Host)?, &inputs)?,
        &super::alone(s, &inputs)?,
    )
}

fn not_loaded(
    s: &Subject<'_>,
    what: &str,
    shard: &ShardFile,
    words: &[&str],
) -> Result<(), String> {
    refused(what, s.device.open(shard, CORE), (shard, CORE), &[DeviceErrorKind::Load], words)
}

fn missing_file(s: &Subject<'_>) -> Result<(), String> {
    not_loaded(
        s,
        "a file that is not there",
        &ShardFile { path: s.files.missing(), ..s.files.shard() },
        &[],
    )
}

fn broken_files(s: &Subject<'_>) -> Result<(), String> {
    s.files.broken().into_iter().try_for_each(|(what, path)| {
        not_loaded(s, what, &ShardFile { path, ..s.files.shard() }, &[])
    })
}

type Change = fn(&mut ShardFile);

/// A shard whose boundary was changed.
fn changed(s: &Subject<'_>, change: Change) -> ShardFile {
    let mut shard = s.files.shard();
    change(&mut shard);
    shard
}

fn other_boundary(s: &Subject<'_>) -> Result<(), String> {
    let extra = |name: &str| TensorSpec {
        name: name.into(),
        dtype: DType::F32,
        shape: vec![1, 8],
        scale: 1.0,
    };
    let mut more = [s.files.shard(), s.files.shard()];
    more[0].inputs.push(extra("more"));
    more[1].outputs.push(extra("more"));
    for (side, shard) in ["input", "output"].iter().zip(&more) {
        not_loaded(s, &format!("an {side} too many"), shard, &[])?;
    }
    let table: [(&str, Change, &[&str]); 8] = [
        ("an input too few", |x| drop(x.inputs.pop()), &[]),
        ("no inputs", |x| x.inputs.clear(), &[]),
        ("an input of another name", |x| x.inputs[1].name = "other".into(), &["other"]),
        ("an output of another name", |x| x.outputs[1].name = "other".into(), &["other"]),
        (
            "an input of another shape",
            |x| x.inputs[0].shape = vec![1, 8, 4, 6],
            &["image", "[1, 8, 4, 6]"],
        ),
        ("an input of fewer axes", |x| x.inputs[2].shape = vec![5, 8], &["tokens", "[5, 8]"]),
        (
            "an output of another shape",
            |x| x.outputs[1].shape = vec![1, 8, 6, 5],
            &["sum", "[1, 8, 6, 5]"],
        ),
        ("an output that is integers", |x| x.outputs[0].dtype = DType::I64, &["scaled"]),
    ];
    table
        .into_iter()
        .try_for_each(|(what, change, words)| not_loaded(s, what, &changed(s, change), words))
}

fn other_order(s: &Subject<'_>) -> Result<(), String> {
    let table: [(&str, Change); 3] = [
        ("inputs in another order", |x| x.inputs.swap(0, 1)),
        ("outputs in another order", |x| x.outputs.swap(0, 1)),
        ("an output too few", |x| drop(x.outputs.pop())),
    ];
    table.into_iter().try_for_each(|(what, change)| not_loaded(s, what, &changed(s, change), &[]))
}

fn by_name(s: &Subject<'_>) -> Result<(), String> {
    let (mut inputs, mut wanted) = (s.files.inputs(0), super::alone(s, &s.files.inputs(0))?);
    let turned = changed(s, |x| {
        x.inputs.reverse();
        x.outputs.reverse();
    });
    inputs.reverse();
    wanted.reverse();
    same("reversed", &run(&mut *open(s, &turned, CORE)?, &inputs)?, &wanted)?;
    let fewer = changed(s, |x| drop(x.outputs.remove(0)));
    inputs.reverse();
    same("the last output alone", &run(&mut *open(s, &fewer, CORE)?, &inputs)?, &wanted[..1])
}

fn no_integers(s: &Subject<'_>) -> Result<(), String> {
    let shard = s.files.integers();
    let kinds = [DeviceErrorKind::Limit, DeviceErrorKind::Load];
    refused(
        "an integer input",
        s.device.open(&shard, CORE),
        (&shard, CORE),
        &kinds,
        &["ids", "run this shard on the host"],
    )
}

fn integers(s: &Subject<'_>) -> Result<(), String> {
    let mut session = open(s, &s.files.integers(), CORE)?;
    let mut rows = |ids: [i64; 5]| -> Result<Vec<f32>, String> {
        let outputs = run(&mut *session, &[Tensor::from_i64([1, 5], ids.to_vec())])?;
        Ok(outputs[0].to_f32().map_err(|e| e.to_string())?.into_owned())
    };
    let (up, down) = (rows([0, 1, 2, 3, 9])?, rows([9, 3, 2, 1, 0])?);
    let turned: Vec<f32> = down.chunks(8).rev().flatten().copied().collect();
    if up == turned && up != down {
        Ok(())
    } else {
        Err(format!("rows are not the table's: {up:?}, {down:?}"))
    }
}

fn scale(s: &Subject<'_>) -> Result<(), String> {
    let scaled =
        changed(s, |x| x.inputs.iter_mut().chain(&mut x.outputs).for_each(|t| t.scale = 0.25));
    let inputs = s.files.inputs(0);
    same(
        "tensors that are stored scaled",
        &run(&mut *open(s, &scaled, CORE)?, &inputs)?,
        &super::alone(s, &inputs)?,
    )
}

fn after_failure(s: &Subject<'_>) -> Result<(), String> {
    let inputs = s.files.inputs(0);
    let wanted = super::alone(s, &inputs)?;
    let mut before = open(s, &s.files.shard(), CORE)?;
    other_boundary(s)?;
    same("a session from before", &run(&mut *before, &inputs)?, &wanted)?;
    same("a session from after", &super::alone(s, &inputs)?, &wanted)
}

/// Open files and threads of this process, where the system tells.
fn held() -> [usize; 2] {
    ["/proc/self/fd", "/proc/self/task"]
        .map(|path| std::fs::read_dir(path).map_or(0, Iterator::count))
}

fn many(s: &Subject<'_>) -> Result<(), String> {
    const SESSIONS: usize = 200;
    let inputs = s.files.inputs(0);
    let wanted = super::alone(s, &inputs)?;
    let before = held();
    for i in 0..SESSIONS {
        let core = CoreId::Npu((i % usize::from(s.device.cores())) as u8);
        let mut session =
            open(s, &s.files.shard(), core).map_err(|e| format!("session {i}: {e}"))?;
        if i % 50 == 0 {
            same(&format!("session {i}"), &run(&mut *session, &inputs)?, &wanted)?;
        }
    }
    let after = held();
    // Other tests of the process open some too.
    let grown = before.iter().zip(after).any(|(&before, after)| after > before + SESSIONS / 2);
    if grown {
        Err(format!("open files and threads grew from {before:?} to {after:?}"))
    } else {
        Ok(())
    }
}
