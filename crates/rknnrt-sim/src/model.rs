//! What `rknn_init` takes.

use crate::layout::{CHANNELS, CONVOLUTION_CHANNELS, Layout, Order, stored};
use crate::{Refusal, system};
use bytes::Bytes;
use rockshard_device::ShardFile;
use rockshard_device_sim::{Allocation, Numerics, SimDevice, SimSession};
use rockshard_graph::{Graph, Op, ValueId};
use rockshard_import::{ImportOptions, fuse, import_file, import_model};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_onnx::schema::tensor_proto::DataLocation;
use rockshard_rknn_abi::Code;
use std::path::Path;

/// A graph and what it costs; contexts share it.
pub(crate) struct Model {
    graph: Graph,
    pub(crate) shard: ShardFile,
    pub(crate) weight_bytes: u64,
    pub(crate) internal_bytes: u64,
    /// What the channels of each output are padded to in the NPU's layout.
    pub(crate) output_channels: Vec<usize>,
    /// The weights, once for all contexts.
    _weights: Allocation,
}

impl Model {
    /// From a file.
    pub(crate) fn open(path: &Path) -> Result<Self, Refusal> {
        let graph =
            import_file(path, &ImportOptions::fixed()).map_err(|e| Refusal::new(Code::Model, e))?;
        Self::of(graph, path)
    }

    /// From memory. External data has no place then.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let refuse = |e: &dyn std::fmt::Display| Refusal::new(Code::Model, e);
        let path = Path::new("model in memory");
        let model = rockshard_onnx::Model::decode(Bytes::copy_from_slice(bytes), path)
            .map_err(|e| refuse(&e))?;
        let weights = model.proto.graph.iter().flat_map(|g| &g.initializer);
        if let Some(outside) =
            weights.into_iter().find(|t| t.data_location == Some(DataLocation::External as i32))
        {
            let name = outside.name.as_deref().unwrap_or_default();
            return Err(refuse(&format!(
                "tensor {name:?} is in another file: give rknn_init the model's path"
            )));
        }
        let mut graph =
            import_model(&model, &ImportOptions::fixed(), None).map_err(|e| refuse(&e))?;
        fuse(&mut graph, None).map_err(|e| refuse(&e))?;
        Self::of(graph, path)
    }

    fn of(graph: Graph, path: &Path) -> Result<Self, Refusal> {
        let specs = |ids: &[ValueId]| -> Vec<TensorSpec> {
            let values = ids.iter().map(|&v| graph.value(v));
            values
                .map(|v| TensorSpec {
                    name: v.name.clone(),
                    dtype: v.dtype,
                    shape: v.shape.clone(),
                    scale: 1.0,
                })
                .collect()
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let shard = ShardFile {
            name,
            path: path.to_owned(),
            inputs: specs(&graph.inputs),
            outputs: specs(&graph.outputs),
        };
        if let Some(large) =
            shard.inputs.iter().chain(&shard.outputs).find(|t| u32::try_from(bytes(t)).is_err())
        {
            let detail = format!(
                "{:?} has {} bytes: sizes of tensors have 32 bits in the C API",
                large.name,
                bytes(large)
            );
            return Err(Refusal::new(Code::Model, detail));
        }
        let driver = system::driver()?;
        let cost = driver.chip().graph(&graph);
        let weights = driver.allocate(cost.weight_bytes)?;
        let producer = |&output: &ValueId| graph.nodes().iter().find(|node| node.output == output);
        let padded = |output| match producer(output).map(|node| &node.op) {
            Some(Op::Conv { .. }) => CONVOLUTION_CHANNELS,
            _ => CHANNELS,
        };
        let output_channels = graph.outputs.iter().map(padded).collect();
        Ok(Model {
            shard,
            output_channels,
            weight_bytes: cost.weight_bytes,
            internal_bytes: cost.internal_bytes,
            graph,
            _weights: weights,
        })
    }

    /// A session of its own for a context.
    pub(crate) fn session(&self) -> Result<SimSession, Refusal> {
        let device = SimDevice::new(Numerics::default(), system::driver()?.chip().clone());
        device
            .session(self.graph.clone(), &self.shard, CoreId::Npu(0))
            .map_err(|e| Refusal::new(Code::Model, e.detail))
    }
}

/// Bytes of a tensor in ONNX's order, as the NPU stores its elements.
fn bytes(spec: &TensorSpec) -> usize {
    Layout { dtype: stored(spec), order: Order::Plain }.bytes(&spec.shape)
}
