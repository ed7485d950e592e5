//! A loaded model with the inputs and outputs of one run.

use crate::layout::{Layout, stored};
use crate::memory::Lent;
use crate::model::Model;
use crate::turns::Turns;
use crate::{Refusal, system};
use rockshard_device::Session;
use rockshard_device_sim::{Allocation, DriverError, SimSession};
use rockshard_manifest::TensorSpec;
use rockshard_rknn_abi::{Code, core_mask};
use rockshard_tensor::Tensor;
use std::sync::Arc;
use std::thread::current;

/// Memory that stands for an input or output.
#[derive(Clone)]
pub(crate) struct Bound {
    pub(crate) memory: Lent,
    pub(crate) layout: Layout,
    /// Whether that is how the NPU has it: nothing is converted then.
    pub(crate) native: bool,
}

pub(crate) struct Context {
    pub(crate) model: Arc<Model>,
    session: SimSession,
    mask: u32,
    pub(crate) inputs: Vec<Option<Tensor>>,
    pub(crate) outputs: Option<Vec<Tensor>>,
    pub(crate) micros: i64,
    pub(crate) bound_inputs: Vec<Option<Bound>>,
    pub(crate) bound_outputs: Vec<Option<Bound>>,
    turns: Turns,
    internal: Internal,
}

/// Where the activations are.
enum Internal {
    Own(#[expect(dead_code, reason = "its drop frees them")] Allocation),
    /// In memory of the caller, once that is set.
    Outside(Option<Lent>),
}

impl Context {
    /// A context of a model, whose activations may be in memory `outside`.
    pub(crate) fn new(model: Arc<Model>, outside: bool) -> Result<Self, Refusal> {
        let session = model.session()?;
        let (inputs, outputs) = (model.shard.inputs.len(), model.shard.outputs.len());
        Ok(Context {
            session,
            mask: core_mask::AUTO,
            turns: Turns::default(),
            internal: if outside {
                Internal::Outside(None)
            } else {
                Internal::Own(system::driver()?.allocate(model.internal_bytes)?)
            },
            inputs: vec![None; inputs],
            outputs: None,
            micros: 0,
            bound_inputs: vec![None; inputs],
            bound_outputs: vec![None; outputs],
            model,
        })
    }

    /// A context of the same model.
    pub(crate) fn twin(&self) -> Result<Self, Refusal> {
        let outside = matches!(self.internal, Internal::Outside(_));
        Ok(Context { mask: self.mask, ..Self::new(self.model.clone(), outside)? })
    }

    pub(crate) fn set_internal(&mut self, memory: Lent, bytes: usize) -> Result<(), Refusal> {
        let needs = self.model.internal_bytes;
        match &mut self.internal {
            Internal::Own(_) => Err(Refusal::new(
                Code::Param,
                "the context was not opened with RKNN_FLAG_INTERNAL_ALLOC_OUTSIDE",
            )),
            Internal::Outside(_) if (bytes as u64) < needs => Err(Refusal::new(
                Code::Param,
                format!("activations take {needs} bytes, the memory has {bytes}"),
            )),
            Internal::Outside(place) => {
                *place = Some(memory);
                Ok(())
            }
        }
    }

    pub(crate) fn set_mask(&mut self, mask: u32) -> Result<(), Refusal> {
        if !system::driver()?.takes(mask) {
            return Err(DriverError::Mask(mask).into());
        }
        self.mask = mask;
        Ok(())
    }

    pub(crate) fn input(&self, index: u32) -> Result<&TensorSpec, Refusal> {
        let inputs = &self.model.shard.inputs;
        inputs.get(index as usize).ok_or_else(|| {
            Refusal::new(Code::Param, format!("there is no input {index} of {}", inputs.len()))
        })
    }

    pub(crate) fn output(&self, index: u32) -> Result<&TensorSpec, Refusal> {
        let outputs = &self.model.shard.outputs;
        outputs.get(index as usize).ok_or_else(|| {
            Refusal::new(Code::Param, format!("there is no output {index} of {}", outputs.len()))
        })
    }

    /// Take an input.
    pub(crate) fn set(&mut self, at: usize, tensor: Tensor) {
        self.inputs[at] = Some(tensor);
        self.bound_inputs[at] = None;
        self.turns.set(current().id(), at);
    }

    /// Run on the inputs that were set, when the driver gives the cores.
    pub(crate) fn run(&mut self) -> Result<(), Refusal> {
        let own = self.turns.run(current().id());
        overlap(own, "runs on inputs that another thread set")?;
        let specs = &self.model.shard.inputs;
        let given = self.inputs.iter().zip(specs).map(|(tensor, spec)| {
            tensor.clone().ok_or_else(|| {
                Refusal::new(Code::Input, format!("input {:?} was never set", spec.name))
            })
        });
        let given = given.collect::<Result<Vec<_>, _>>()?;
        self.outputs = None;
        let native = |bounds: &[Option<Bound>]| -> Vec<bool> {
            bounds.iter().map(|b| b.as_ref().is_some_and(|b| b.native)).collect()
        };
        let modelled =
            self.session.modelled_beside(&native(&self.bound_inputs), &native(&self.bound_outputs));
        let (tasks, session) = (self.session.tasks(), &mut self.session);
        let activations = match &self.internal {
            Internal::Own(_) => None,
            Internal::Outside(None) if self.model.internal_bytes == 0 => None,
            Internal::Outside(None) => {
                return Err(Refusal::new(Code::Param, "the memory of activations was not set"));
            }
            Internal::Outside(Some(memory)) => Some(memory.occupy()?),
        };
        let done = system::driver()?.submit(self.mask, tasks, modelled, |_| session.run(&given))?;
        let done = done.map_err(|e| Refusal::new(Code::Fail, e.detail))?;
        self.micros = modelled.as_micros() as i64;
        self.outputs = Some(done.outputs);
        if activations.is_some_and(|activations| activations.spoilt) {
            self.spoil();
        }
        Ok(())
    }

    /// Spoil the outputs of the last run, as a call of another thread during it does.
    pub(crate) fn spoil(&mut self) {
        let turned = |t: &Tensor| {
            let mut bytes = t.bytes().to_vec();
            bytes.rotate_left(t.dtype().size());
            Tensor::new(t.dtype(), t.shape().to_vec(), bytes.into()).unwrap_or_else(|_| t.clone())
        };
        self.outputs = self.outputs.take().map(|outputs| outputs.iter().map(turned).collect());
    }

    /// The outputs are about to be got.
    pub(crate) fn get(&mut self) -> Result<(), Refusal> {
        let own = self.turns.get(current().id());
        overlap(own, "gets the outputs of a run of another thread, which came after its own")
    }

    /// An output of the last run, and how the caller wants it.
    pub(crate) fn result(
        &self,
        index: u32,
        want_float: bool,
    ) -> Result<(&Tensor, Layout), Refusal> {
        let spec = self.output(index)?;
        let outputs = self
            .outputs
            .as_ref()
            .ok_or_else(|| Refusal::new(Code::Output, "there was no run that succeeded"))?;
        let dtype = if want_float { rockshard_tensor::DType::F32 } else { stored(spec) };
        Ok((&outputs[index as usize], Layout { dtype, order: crate::layout::Order::Plain }))
    }
}

/// An overlap is an error, or what a board makes of it: the caller goes on.
pub(crate) fn overlap(own: bool, what: &str) -> Result<(), Refusal> {
    if own || system::driver()?.chip().silent_overlap {
        return Ok(());
    }
    let detail = format!(
        "a thread {what}: a context is for one thread at a time, a board gives wrong results here and no error"
    );
    Err(Refusal::new(Code::Fail, detail))
}
