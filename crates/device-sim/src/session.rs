//! One shard on the simulated NPU: a compiled program, run step by step over values that are freed at their last use. Time does not
//! depend on values, so it is known when the session is opened.

use crate::Numerics;
use crate::numerics::has_non_finite;
use crate::program::{Argument, Step, compile};
use rockshard_cost::{Boundary, Rk3588};
use rockshard_device::{
    Completion, DeviceError, DeviceErrorKind, Kept, Session, ShardFile, Value, check_inputs,
    check_values,
};
use rockshard_graph::{Graph, ValueId};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::{DType, Tensor};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A shard loaded onto a core of the simulated NPU.
pub struct SimSession {
    shard: ShardFile,
    core: CoreId,
    numerics: Numerics,
    steps: Vec<Step>,
    inputs: Vec<(ValueId, bool)>,
    /// Graph outputs; a constant that is given as it is has its tensor.
    outputs: Vec<(ValueId, Option<Tensor>)>,
    time: Time,
    peak_bytes: u64,
    non_finite: Option<String>,
    /// Register fields overflow: the run gives zeros, as on a board.
    zeros: bool,
}

impl SimSession {
    pub(crate) fn load(
        graph: Graph,
        shard: &ShardFile,
        core: CoreId,
        numerics: Numerics,
        chip: &Rk3588,
    ) -> Result<Self, DeviceError> {
        let fail = |kind, detail: String| Err(DeviceError::new(kind, &shard.name, core, detail));
        for (role, ids, specs) in
            [("input", &graph.inputs, &shard.inputs), ("output", &graph.outputs, &shard.outputs)]
        {
            if let Err(detail) = check_boundary(role, &graph, ids, specs) {
                return fail(DeviceErrorKind::Load, detail);
            }
        }
        if let Some(input) = shard.inputs.iter().find(|spec| !spec.dtype.is_float()) {
            let detail = format!(
                "input {:?} is {}: the NPU takes real numbers, run this shard on the host",
                input.name, input.dtype
            );
            return fail(DeviceErrorKind::Limit, detail);
        }
        // Where a board gives zeros for extents that are too long, only its memory is a limit.
        let extents = Rk3588 { address_space: u64::MAX, ..chip.clone() };
        let zeros = chip.zeros_on_overflow && !extents.limits(&graph).is_empty();
        let memory =
            Rk3588 { largest_extent: usize::MAX, most_channels: usize::MAX, ..chip.clone() };
        if let Some(limit) = if zeros { &memory } else { chip }.limits(&graph).into_iter().next() {
            return fail(DeviceErrorKind::Limit, limit.to_string());
        }
        let steps = match compile(&graph, numerics) {
            Ok(steps) => steps,
            Err(detail) => return fail(DeviceErrorKind::Load, detail),
        };
        let used = |v: ValueId| {
            graph.outputs.contains(&v)
                || steps
                    .iter()
                    .any(|s| s.inputs.iter().any(|a| matches!(a, Argument::Value(u) if *u == v)))
        };
        let inputs = graph.inputs.iter().map(|&v| (v, used(v))).collect();
        let outputs = graph.outputs.iter().map(|&v| (v, graph.constant(v).cloned())).collect();
        let time = Time::of(&graph, chip);
        Ok(SimSession {
            shard: shard.clone(),
            core,
            numerics,
            steps,
            inputs,
            outputs,
            time,
            peak_bytes: 0,
            non_finite: None,
            zeros,
        })
    }

    /// Most bytes of activations (inputs and outputs included) that existed at a time in the last run.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// Where the first infinity or NaN of the last run appeared: an input, or the node that made it from finite values.
    pub fn first_non_finite(&self) -> Option<&str> {
        self.non_finite.as_deref()
    }

    /// How long a run is modelled to take of which these inputs and outputs stay on the device.
    pub fn modelled_beside(&self, inputs: &[bool], outputs: &[bool]) -> Duration {
        self.time.beside(inputs, outputs).0
    }

    /// Operators that it submits to the NPU.
    pub fn tasks(&self) -> u64 {
        self.steps.len() as u64
    }

    fn error(&self, kind: DeviceErrorKind, detail: String) -> DeviceError {
        DeviceError::new(kind, &self.shard.name, self.core, detail)
    }
}

fn check_boundary(
    role: &str,
    graph: &Graph,
    ids: &[ValueId],
    specs: &[TensorSpec],
) -> Result<(), String> {
    if ids.len() != specs.len() {
        return Err(format!("the graph has {} {role}s, the manifest {}", ids.len(), specs.len()));
    }
    for (spec, value) in specs.iter().zip(ids.iter().map(|&v| graph.value(v))) {
        if spec.name != value.name
            || spec.shape != value.shape
            || spec.dtype.is_float() != value.dtype.is_float()
        {
            return Err(format!(
                "{role} {:?} of the manifest is {}{:?}, the graph has {:?}, {}{:?}, in its place",
                spec.name, spec.dtype, spec.shape, value.name, value.dtype, value.shape
            ));
        }
    }
    Ok(())
}

/// Tensors that exist during a run.
#[derive(Default)]
struct Live {
    tensors: HashMap<ValueId, Tensor>,
    bytes: u64,
    peak: u64,
}

impl Live {
    fn insert(&mut self, id: ValueId, tensor: Tensor) {
        self.bytes += tensor.bytes().len() as u64;
        self.peak = self.peak.max(self.bytes);
        self.tensors.insert(id, tensor);
    }

    fn remove(&mut self, id: ValueId) {
        if let Some(tensor) = self.tensors.remove(&id) {
            self.bytes -= tensor.bytes().len() as u64;
        }
    }
}

/// How long a run takes.
struct Time {
    chip: Rk3588,
    boundary: Boundary,
    /// Microseconds of all but the boundary, and those of them that wait for the memory.
    micros: f64,
    streaming_micros: f64,
}

impl Time {
    fn of(graph: &Graph, chip: &Rk3588) -> Self {
        let (whole, boundary) = (chip.graph(graph), chip.boundary(graph));
        let crossing = boundary.cost();
        let streaming_micros = whole.streaming_micros - chip.streaming_micros(&crossing);
        Time {
            chip: chip.clone(),
            micros: whole.micros - crossing.micros,
            streaming_micros,
            boundary,
        }
    }

    /// Modelled time and the part of it that waits for the memory, where these inputs and outputs stay on the device.
    fn beside(&self, inputs: &[bool], outputs: &[bool]) -> (Duration, Duration) {
        let crossing = self.boundary.cost_beside(inputs, outputs);
        let duration = |micros: f64| Duration::from_secs_f64(micros.max(0.0) * 1e-6);
        (
            duration(self.micros + crossing.micros),
            duration(self.streaming_micros + self.chip.streaming_micros(&crossing)),
        )
    }
}

/// A tensor that stays on the device: in float16, as the NPU has it. Any of its shards takes it.
struct SimKept(Tensor);

impl Kept for SimKept {
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

impl Session for SimSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        check_inputs(&self.shard, self.core, inputs)?;
        let outputs = self.compute(inputs)?;
        let (modelled, streaming) = self.time.beside(&[], &[]);
        Ok(Completion { outputs, modelled: Some(modelled), streaming })
    }

    fn run_between(
        &mut self,
        inputs: &[Value],
        keep: &[bool],
    ) -> Result<Completion<Value>, DeviceError> {
        check_values(&self.shard, self.core, inputs)?;
        let given: Vec<Tensor> = inputs.iter().map(Value::tensor).collect();
        let here: Vec<bool> =
            inputs.iter().map(|input| input.kept::<SimKept>().is_some()).collect();
        let keep: Vec<bool> = self
            .shard
            .outputs
            .iter()
            .zip(keep)
            .map(|(spec, &keep)| keep && spec.dtype.is_float())
            .collect();
        let outputs = self.compute(&given)?.into_iter().enumerate();
        let kept = |at| keep.get(at) == Some(&true);
        let outputs = outputs
            .map(
                |(at, t)| if kept(at) { Value::Kept(Arc::new(SimKept(t))) } else { Value::Host(t) },
            )
            .collect();
        let (modelled, streaming) = self.time.beside(&here, &keep);
        Ok(Completion { outputs, modelled: Some(modelled), streaming })
    }
}

impl SimSession {
    /// The outputs for inputs that fit.
    fn compute(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, DeviceError> {
        if self.zeros {
            let zeros = self.shard.outputs.iter().map(|t| {
                let dtype = if t.dtype.is_float() { DType::F16 } else { t.dtype };
                let bytes = vec![0; t.shape.iter().product::<usize>() * dtype.size()];
                Tensor::new(dtype, t.shape.clone(), bytes.into())
                    .map_err(|e| self.error(DeviceErrorKind::Run, e.to_string()))
            });
            return zeros.collect();
        }
        let mut live = Live::default();
        let mut non_finite = None;
        for ((tensor, &(id, used)), spec) in inputs.iter().zip(&self.inputs).zip(&self.shard.inputs)
        {
            let tensor = tensor.to_float(DType::F16).map_err(|e| {
                self.error(DeviceErrorKind::Input, format!("input {:?}: {e}", spec.name))
            })?;
            if used {
                let tensor = self.numerics.settle(tensor);
                if non_finite.is_none() && has_non_finite(&tensor) {
                    non_finite = Some(spec.name.clone());
                }
                live.insert(id, tensor);
            }
        }
        let missing = |id: ValueId| {
            self.error(
                DeviceErrorKind::Run,
                format!("value {} is used before it is made", id.index()),
            )
        };
        for step in &self.steps {
            let find = |argument| match argument {
                &Argument::Value(id) => live.tensors.get(&id).ok_or_else(|| missing(id)),
                Argument::Constant(tensor) => Ok(tensor),
            };
            let arguments = step.inputs.iter().map(find).collect::<Result<Vec<_>, _>>()?;
            let output = step.run(&arguments).map_err(|e| {
                self.error(DeviceErrorKind::Run, format!("node {:?}: {e}", step.name))
            })?;
            let output = self.numerics.settle(output);
            if non_finite.is_none() && !step.keeps_finite() && has_non_finite(&output) {
                non_finite = Some(step.name.clone());
            }
            live.insert(step.output, output);
            for &id in &step.frees {
                live.remove(id);
            }
        }
        let give = |(id, constant): &(ValueId, Option<Tensor>)| {
            let tensor =
                constant.as_ref().or_else(|| live.tensors.get(id)).ok_or_else(|| missing(*id))?;
            if tensor.dtype().is_float() {
                tensor
                    .to_float(DType::F16)
                    .map_err(|e| self.error(DeviceErrorKind::Run, e.to_string()))
            } else {
                Ok(tensor.clone())
            }
        };
        let outputs = self.outputs.iter().map(give).collect::<Result<Vec<_>, _>>()?;
        self.peak_bytes = live.peak;
        self.non_finite = non_finite;
        Ok(outputs)
    }
}
