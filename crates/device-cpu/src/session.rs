//! One graph loaded into rten.

use crate::convert::{rten_type, to_tensor, to_value};
use rockshard_device::{
    Completion, DeviceError, DeviceErrorKind, Session, ShardFile, check_inputs,
};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::Tensor;
use rten::{Dimension, Model, ModelOptions, NodeId, RunOptions, ThreadPool};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct CpuSession {
    shard: ShardFile,
    core: CoreId,
    model: Model,
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    threads: Option<Arc<ThreadPool>>,
}

impl CpuSession {
    /// Load the graph and match its boundary with the one the shard declares, by name.
    pub(crate) fn open(
        shard: &ShardFile,
        core: CoreId,
        threads: Option<Arc<ThreadPool>>,
    ) -> Result<Self, DeviceError> {
        let file =
            shard.path.file_name().unwrap_or(shard.path.as_os_str()).to_string_lossy().into_owned();
        let fail = |detail: String| {
            DeviceError::new(DeviceErrorKind::Load, &shard.name, core, format!("{file}: {detail}"))
        };
        if !is_onnx(&shard.path) {
            return Err(fail(
                "the cpu device runs .onnx graphs; name the shard's .onnx file".into(),
            ));
        }
        let mut options = ModelOptions::with_all_ops();
        let mut model = options.load_file(&shard.path).map_err(|e| fail(e.to_string()))?;
        // rten's optimiser may give an output that it has folded another name.
        if boundary(&model, model.output_ids(), &shard.outputs, "output").is_err() {
            options.enable_optimization(false);
            model = options.load_file(&shard.path).map_err(|e| fail(e.to_string()))?;
        }
        let inputs = boundary(&model, model.input_ids(), &shard.inputs, "input").map_err(&fail)?;
        let outputs =
            boundary(&model, model.output_ids(), &shard.outputs, "output").map_err(&fail)?;
        if let Some(extra) = model.input_ids().iter().find(|id| !inputs.contains(id)) {
            let name = model
                .node_info(*extra)
                .and_then(|n| n.name().map(str::to_owned))
                .unwrap_or_default();
            return Err(fail(format!(
                "the graph needs input {name:?}, which the shard does not declare"
            )));
        }
        Ok(CpuSession { shard: shard.clone(), core, model, inputs, outputs, threads })
    }
}

impl Session for CpuSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        let fail =
            |kind, detail: String| DeviceError::new(kind, &self.shard.name, self.core, detail);
        check_inputs(&self.shard, self.core, inputs)?;
        let values = self
            .inputs
            .iter()
            .zip(&self.shard.inputs)
            .zip(inputs)
            .map(|((&id, spec), tensor)| Ok((id, to_value(&spec.name, tensor)?.into())))
            .collect::<Result<Vec<_>, String>>()
            .map_err(|e| fail(DeviceErrorKind::Input, e))?;
        let options = RunOptions::default().with_thread_pool(self.threads.clone());
        let values = self
            .model
            .run(values, &self.outputs, Some(options))
            .map_err(|e| fail(DeviceErrorKind::Run, e.to_string()))?;
        let outputs = self
            .shard
            .outputs
            .iter()
            .zip(values)
            .map(|(spec, value)| to_tensor(spec, value))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| fail(DeviceErrorKind::Run, e))?;
        Ok(Completion { outputs, modelled: None, streaming: Duration::ZERO })
    }
}

fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
}

/// Find each declared tensor among the graph's boundary values and compare what both say about it.
fn boundary(
    model: &Model,
    ids: &[NodeId],
    specs: &[TensorSpec],
    side: &str,
) -> Result<Vec<NodeId>, String> {
    specs.iter().map(|spec| find(model, ids, spec, side)).collect()
}

fn find(model: &Model, ids: &[NodeId], spec: &TensorSpec, side: &str) -> Result<NodeId, String> {
    let name = &spec.name;
    let id = model.find_node(name).filter(|id| ids.contains(id)).ok_or_else(|| {
        format!("the shard declares {side} {name:?}, which the graph does not have")
    })?;
    let info = model.node_info(id);
    if let Some(found) =
        info.as_ref().and_then(|i| i.dtype()).filter(|&t| t != rten_type(spec.dtype))
    {
        return Err(format!(
            "{side} {name:?} is {found} in the graph, the shard declares {}",
            spec.dtype
        ));
    }
    let shape = info.and_then(|i| i.shape());
    let fits = shape.as_ref().is_none_or(|dims| {
        dims.len() == spec.shape.len()
            && dims.iter().zip(&spec.shape).all(|(d, &n)| match d {
                Dimension::Fixed(size) => *size == n,
                Dimension::Symbolic(_) => true,
            })
    });
    if !fits {
        return Err(format!(
            "{side} {name:?} is {shape:?} in the graph, the shard declares {:?}",
            spec.shape
        ));
    }
    Ok(id)
}
