//! One module's update, `scale * alpha / rank * up * down`, and the weight that it is added to.

use super::LoraError;
use super::file::Contents;
use super::keys::{self, Half, split_key};
use rockshard_graph::Op;
use rockshard_kernels::{Precision, evaluate};
use rockshard_tensor::{DType, Tensor};
use std::collections::BTreeMap;

/// One module's update.
pub(super) struct Update {
    /// Module as the file spells it.
    pub spelling: String,
    /// Part it is for; any when the file does not say.
    part: Option<&'static str>,
    /// Module path in the common spelling.
    pub module: String,
    /// Keys of `down` and `up`.
    keys: [String; 2],
    /// `[rank, in]`, or `[rank, in, h, w]` for a convolution.
    down: Tensor,
    /// `[out, rank]`, or `[out, rank, 1, 1]`.
    up: Tensor,
    /// Scale times alpha over rank.
    factor: f32,
    pub matched: bool,
}

/// The updates of a file, by module.
pub(super) fn updates(contents: Contents, scale: f32) -> Result<Vec<Update>, LoraError> {
    let mut modules: BTreeMap<String, BTreeMap<Half, (String, Tensor)>> = BTreeMap::new();
    for (key, tensor) in contents.tensors {
        let (module, half) = split_key(&key)?;
        modules.entry(module).or_default().insert(half, (key, tensor));
    }
    let update = |(spelling, mut halves): (String, BTreeMap<Half, (String, Tensor)>)| {
        let (down, up) = match (halves.remove(&Half::Down), halves.remove(&Half::Up)) {
            (Some(down), Some(up)) => (down, up),
            (down, _) => {
                let missing = if down.is_none() { "down" } else { "up" };
                return Err(LoraError::Half { module: spelling, missing });
            }
        };
        let (down, up) = (real(down)?, real(up)?);
        let (keys, down, up) = ([down.0, up.0], down.1, up.1);
        let rank = down.shape().first().copied().unwrap_or(0);
        if down.shape().len() < 2 || up.shape().len() < 2 || up.shape()[1] != rank || rank == 0 {
            let (down, up) = (down.shape().to_vec(), up.shape().to_vec());
            return Err(LoraError::Rank { keys, down, up });
        }
        let (part, module) = keys::part_and_module(&spelling);
        let share = match halves.remove(&Half::Alpha) {
            Some((key, tensor)) => alpha(&key, &tensor)? / rank as f32,
            None => contents.alphas.factor(part, rank),
        };
        let factor = scale * share;
        Ok(Update { spelling, part, module, keys, down, up, factor, matched: false })
    };
    modules.into_iter().map(update).collect()
}

/// A half as float32, with its key.
fn real((key, tensor): (String, Tensor)) -> Result<(String, Tensor), LoraError> {
    match tensor.to_float(DType::F32) {
        Ok(tensor) => Ok((key, tensor)),
        Err(_) => Err(LoraError::Type(key)),
    }
}

/// A stored alpha: one number of any type, whatever its rank.
fn alpha(key: &str, tensor: &Tensor) -> Result<f32, LoraError> {
    let values = match tensor.dtype().is_float() {
        true => tensor.to_f32().map(|values| values.to_vec()),
        false => tensor.to_i64().map(|values| values.iter().map(|&v| v as f32).collect()),
    };
    match values.as_deref() {
        Ok(&[alpha]) if alpha.is_finite() => Ok(alpha),
        _ => Err(LoraError::Alpha(key.to_owned())),
    }
}

impl Update {
    /// Whether the file leaves this update for a part; a part without a name takes any.
    pub fn is_for(&self, part: Option<&str>) -> bool {
        self.part.is_none() || part.is_none() || self.part == part
    }

    /// Whether it fits a weight: `[in, out]` of a product, `[out, in, h, w]` of a convolution.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<(), LoraError> {
        let (rank, out, inner) = self.extents();
        let product = shape.len() == 2;
        let fits = match shape {
            [] => false,
            [first, second] => [*first, *second] == [inner, out],
            [first, rest @ ..] => [*first, rest.iter().product()] == [out, inner],
        };
        // A convolution's update has the kernel's extents on `down`, or is of 1x1 kernels throughout.
        let down = self.down.shape();
        let kernels = product || down.len() == 2 || down[1..] == shape[1..];
        if fits && kernels && self.up.len() == out * rank {
            return Ok(());
        }
        Err(LoraError::Shape {
            keys: self.keys.clone(),
            down: down.to_vec(),
            up: self.up.shape().to_vec(),
            weight: name.to_owned(),
            shape: shape.to_vec(),
        })
    }

    /// Rank, outputs, and inputs with the extents of a kernel.
    fn extents(&self) -> (usize, usize, usize) {
        let rank = self.down.shape()[0];
        (rank, self.up.shape()[0], self.down.len() / rank)
    }

    /// Add the update to the values of a weight.
    ///
    /// # Errors
    /// As [`Update::check`].
    pub fn add_to(&self, values: &mut [f32], name: &str, shape: &[usize]) -> Result<(), LoraError> {
        self.check(name, shape)?;
        let (rank, out, inner) = self.extents();
        let real = |_| LoraError::Type(self.keys[0].clone());
        let up = self.up.reshape([out, rank]).map_err(real)?;
        let down = self.down.reshape([rank, inner]).map_err(real)?;
        let product = evaluate(&Op::MatMul, &[&up, &down], Precision::F32);
        let product = product.map_err(|_| LoraError::Type(self.keys[0].clone()))?;
        let product = product.to_f32().map_err(real)?;
        let transposed = shape.len() == 2;
        for (o, row) in product.chunks_exact(inner.max(1)).enumerate() {
            for (i, delta) in row.iter().enumerate() {
                values[if transposed { i * out + o } else { o * inner + i }] += self.factor * delta;
            }
        }
        Ok(())
    }
}
