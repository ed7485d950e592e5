//! A whole model in rten, as rten reads it.

use crate::convert::to_value;
use rockshard_device::OnnxModel;
use rockshard_tensor::Tensor;
use rten::{ModelOptions, RunOptions, ThreadPool, Value};
use rten_tensor::Layout;
use std::sync::Arc;

/// Run a model once. Integers come as int32, which rten computes with.
pub(crate) fn evaluate(
    model: OnnxModel<'_>,
    inputs: &[(&str, &Tensor)],
    outputs: &[&str],
    threads: Option<Arc<ThreadPool>>,
) -> Result<Vec<Tensor>, String> {
    let options = ModelOptions::with_all_ops();
    let model = match model {
        OnnxModel::File(path) => options.load_file(path),
        OnnxModel::Bytes(bytes) => options.load(bytes.to_vec()),
    };
    let model = model.map_err(|e| e.to_string())?;
    let node = |name: &str| model.node_id(name).map_err(|e| e.to_string());
    let mut given = Vec::new();
    for (name, tensor) in inputs {
        // What no operator reads, rten may not know.
        if let Ok(id) = node(name) {
            given.push((id, to_value(name, tensor)?.into()));
        }
    }
    let wanted = outputs.iter().map(|name| node(name)).collect::<Result<Vec<_>, _>>()?;
    let options = RunOptions::default().with_thread_pool(threads);
    let values = model.run(given, &wanted, Some(options)).map_err(|e| e.to_string())?;
    values.into_iter().map(tensor).collect()
}

fn tensor(value: Value) -> Result<Tensor, String> {
    fn shape<T>(tensor: &rten_tensor::Tensor<T>) -> Vec<usize> {
        tensor.shape().as_ref().to_vec()
    }
    Ok(match value {
        Value::FloatTensor(t) => Tensor::from_f32(shape(&t), t.into_data()),
        Value::Int32Tensor(t) => Tensor::from_i32(shape(&t), t.into_data()),
        Value::Int8Tensor(t) => {
            Tensor::from_i32(shape(&t), t.into_data().into_iter().map(i32::from).collect())
        }
        Value::UInt8Tensor(t) => {
            Tensor::from_i32(shape(&t), t.into_data().into_iter().map(i32::from).collect())
        }
        other => return Err(format!("an output is a {}", other.dtype())),
    })
}
