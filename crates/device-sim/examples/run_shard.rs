//! Run an ONNX file of fixed shapes on the simulated NPU, for comparisons with other simulators:
//!
//! `run_shard MODEL.onnx OUT INPUT.npy...` writes `OUT/0.npy, OUT/1.npy, ...` in the order of the graph's outputs.

use rockshard_cost::Rk3588;
use rockshard_device::{Session, ShardFile};
use rockshard_device_sim::{Numerics, SimDevice};
use rockshard_graph::{Graph, ValueId};
use rockshard_import::{ImportOptions, import_file};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::{Tensor, read_npy, write_npy};
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

fn specs(graph: &Graph, values: &[ValueId]) -> Vec<TensorSpec> {
    let spec = |v: &ValueId| {
        let value = graph.value(*v);
        TensorSpec {
            name: value.name.clone(),
            dtype: value.dtype,
            shape: value.shape.clone(),
            scale: 1.0,
        }
    };
    values.iter().map(spec).collect()
}

fn read(path: PathBuf) -> Result<Tensor, Box<dyn Error>> {
    Ok(read_npy(&std::fs::read(path)?.into())?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(path), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: run_shard MODEL.onnx OUT INPUT.npy...".into());
    };
    let inputs = arguments.map(read).collect::<Result<Vec<_>, _>>()?;
    let graph = import_file(&path, &ImportOptions::fixed())?;
    let (inputs_of, outputs_of) = (specs(&graph, &graph.inputs), specs(&graph, &graph.outputs));
    let shard = ShardFile {
        name: path.display().to_string(),
        path,
        inputs: inputs_of,
        outputs: outputs_of,
    };
    let mut session = SimDevice::new(Numerics::default(), Rk3588::default()).session(
        graph,
        &shard,
        CoreId::Npu(0),
    )?;
    std::fs::create_dir_all(&out)?;
    for (i, output) in session.run(&inputs)?.outputs.iter().enumerate() {
        write_npy(output, &mut BufWriter::new(File::create(out.join(format!("{i}.npy")))?))?;
    }
    Ok(())
}
