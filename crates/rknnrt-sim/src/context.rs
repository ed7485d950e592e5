//! A loaded model with the inputs and outputs of one run.

use crate::Refusal;
use crate::layout::{Layout, stored};
use crate::model::Model;
use rockshard_device::Session;
use rockshard_device_sim::SimSession;
use rockshard_manifest::TensorSpec;
use rockshard_rknn_abi::{Code, core_mask};
use rockshard_tensor::Tensor;
use std::sync::Arc;

/// Memory that stands for an input or output.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) memory: u64,
    pub(crate) layout: Layout,
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
}

impl Context {
    pub(crate) fn new(model: Arc<Model>) -> Result<Self, Refusal> {
        let session = model.session()?;
        let (inputs, outputs) = (model.shard.inputs.len(), model.shard.outputs.len());
        Ok(Context {
            session,
            mask: core_mask::AUTO,
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
        Ok(Context { mask: self.mask, ..Self::new(self.model.clone())? })
    }

    pub(crate) fn set_mask(&mut self, mask: u32) -> Result<(), Refusal> {
        if mask != core_mask::AUTO && !core_mask::CORES.contains(&mask) {
            return Err(Refusal::new(Code::Param, format!("core mask {mask:#x} is none of 0, 1, 2, 4, 3, 7")));
        }
        self.mask = mask;
        Ok(())
    }

    pub(crate) fn input(&self, index: u32) -> Result<&TensorSpec, Refusal> {
        let inputs = &self.model.shard.inputs;
        inputs.get(index as usize).ok_or_else(|| Refusal::new(Code::Param, format!("there is no input {index} of {}", inputs.len())))
    }

    pub(crate) fn output(&self, index: u32) -> Result<&TensorSpec, Refusal> {
        let outputs = &self.model.shard.outputs;
        outputs.get(index as usize).ok_or_else(|| Refusal::new(Code::Param, format!("there is no output {index} of {}", outputs.len())))
    }

    /// Run on the inputs that were set.
    pub(crate) fn run(&mut self) -> Result<(), Refusal> {
        let specs = &self.model.shard.inputs;
        let given =
            self.inputs.iter().zip(specs).map(|(tensor, spec)| {
                tensor.clone().ok_or_else(|| Refusal::new(Code::Input, format!("input {:?} was never set", spec.name)))
            });
        let given = given.collect::<Result<Vec<_>, _>>()?;
        self.outputs = None;
        let done = self.session.run(&given).map_err(|e| Refusal::new(Code::Fail, e.detail))?;
        self.micros = done.modelled.map_or(0, |time| time.as_micros() as i64);
        self.outputs = Some(done.outputs);
        Ok(())
    }

    /// An output of the last run, and how the caller wants it.
    pub(crate) fn result(&self, index: u32, want_float: bool) -> Result<(&Tensor, Layout), Refusal> {
        let spec = self.output(index)?;
        let outputs = self.outputs.as_ref().ok_or_else(|| Refusal::new(Code::Output, "there was no run that succeeded"))?;
        let dtype = if want_float { rockshard_tensor::DType::F32 } else { stored(spec) };
        Ok((&outputs[index as usize], Layout { dtype, order: crate::layout::Order::Plain }))
    }
}
