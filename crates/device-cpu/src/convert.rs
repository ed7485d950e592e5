//! Between rockshard's tensors and rten's values.

use rockshard_manifest::TensorSpec;
use rockshard_tensor::{DType, Tensor};
use rten::{DataType, Value, ValueType};

/// The type rten computes tensors of `dtype` with.
pub(crate) fn rten_type(dtype: DType) -> ValueType {
    ValueType::Tensor(if dtype.is_float() { DataType::Float } else { DataType::Int32 })
}

/// An input as rten takes it; the message says which value does not fit.
pub(crate) fn to_value(name: &str, tensor: &Tensor) -> Result<Value, String> {
    let shape = tensor.shape();
    if tensor.dtype().is_float() {
        let values = tensor.to_f32().map_err(|e| format!("input {name:?}: {e}"))?;
        return Value::from_shape(shape, values.into_owned())
            .map_err(|e| format!("input {name:?}: {e}"));
    }
    let values = tensor.to_i64().map_err(|e| format!("input {name:?}: {e}"))?;
    let narrow = |(at, &v): (usize, &i64)| {
        i32::try_from(v).map_err(|_| format!("input {name:?}: value {v} at {at} is outside int32, which the cpu device computes with"))
    };
    let values = values.iter().enumerate().map(narrow).collect::<Result<Vec<i32>, _>>()?;
    Value::from_shape(shape, values).map_err(|e| format!("input {name:?}: {e}"))
}

/// An output as the shard declares it: float32 for every real-valued one.
pub(crate) fn to_tensor(spec: &TensorSpec, value: Value) -> Result<Tensor, String> {
    let name = &spec.name;
    let kind = value.dtype();
    let wrong_shape = |shape: &[usize]| {
        Err(format!("output {name:?} came out as {shape:?}, the shard declares {:?}", spec.shape))
    };
    match value {
        Value::FloatTensor(t) if spec.dtype.is_float() => {
            let shape = rten_shape(&t);
            if shape != spec.shape {
                wrong_shape(&shape)
            } else {
                Ok(Tensor::from_f32(shape, t.into_data()))
            }
        }
        Value::Int32Tensor(t) if !spec.dtype.is_float() => {
            let shape = rten_shape(&t);
            if shape != spec.shape {
                return wrong_shape(&shape);
            }
            let data = t.into_data();
            Ok(match spec.dtype {
                DType::Bool => Tensor::from_bool(shape, data.into_iter().map(|v| v != 0).collect()),
                DType::I32 => Tensor::from_i32(shape, data),
                _ => Tensor::from_i64(shape, data.into_iter().map(i64::from).collect()),
            })
        }
        _ => Err(format!("output {name:?} came out as {kind}, the shard declares {}", spec.dtype)),
    }
}

fn rten_shape<T>(tensor: &rten_tensor::Tensor<T>) -> Vec<usize> {
    use rten_tensor::Layout;
    tensor.shape().as_ref().to_vec()
}
