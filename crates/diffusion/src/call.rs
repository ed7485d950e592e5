//! One call of a network, and what is checked about it before and after: the declarations, the number of results, their length, and
//! that they are finite.

use crate::{Error, NetworkSpec, Networks, TensorMap};
use rockshard_manifest::{Role, TensorSpec};
use rockshard_tensor::{DType, Tensor};

/// What was started and is still to come. The networks work on it in the meantime; dropping it abandons it.
pub struct Pending<T>(Box<dyn FnOnce() -> Result<T, Error> + Send>);

impl<T: 'static> Pending<T> {
    pub(crate) fn new(finish: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Self {
        Pending(Box::new(finish))
    }

    pub(crate) fn map<U>(self, convert: impl FnOnce(T) -> U + Send + 'static) -> Pending<U> {
        Pending(Box::new(move || Ok(convert((self.0)()?))))
    }

    /// Wait for it.
    ///
    /// # Errors
    /// The network failed, or gave something else than it declares.
    pub fn wait(self) -> Result<T, Error> {
        (self.0)()
    }
}

pub(crate) fn interface(role: Role, detail: impl Into<String>) -> Error {
    Error::Interface { role, detail: detail.into() }
}

/// What the network of a role takes and gives.
pub(crate) fn spec(networks: &dyn Networks, role: Role) -> Result<NetworkSpec, Error> {
    networks.spec(role).ok_or(Error::MissingNetwork { role })
}

/// An input by name.
pub(crate) fn input(spec: &NetworkSpec, role: Role, name: &str) -> Result<TensorSpec, Error> {
    let names = || spec.inputs.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = spec.inputs.iter().find(|s| s.name == name).cloned();
    found.ok_or_else(|| interface(role, format!("has no input {name:?}, only {}", names())))
}

/// The first input of a network that has one.
pub(crate) fn first_input(spec: &NetworkSpec, role: Role) -> Result<TensorSpec, Error> {
    spec.inputs.first().cloned().ok_or_else(|| interface(role, "has no input"))
}

/// The first output.
pub(crate) fn first_output(spec: &NetworkSpec, role: Role) -> Result<TensorSpec, Error> {
    spec.outputs.first().cloned().ok_or_else(|| interface(role, "has no output"))
}

/// Number of values.
pub(crate) fn elements(spec: &TensorSpec) -> usize {
    spec.shape.iter().product()
}

/// Whole numbers in whichever type a network declares for them.
pub(crate) fn integers(spec: &TensorSpec, values: Vec<i64>) -> Tensor {
    let shape = spec.shape.clone();
    match spec.dtype {
        DType::I32 => Tensor::from_i32(shape, values.iter().map(|&v| v as i32).collect()),
        dtype if dtype.is_float() => {
            Tensor::from_f32(shape, values.iter().map(|&v| v as f32).collect())
        }
        _ => Tensor::from_i64(shape, values),
    }
}

/// A number in whichever type a network declares for it, rounded where that has whole numbers only.
pub(crate) fn numbers(spec: &TensorSpec, value: f64) -> Tensor {
    if spec.dtype.is_float() {
        return Tensor::from_f32(spec.shape.clone(), vec![value as f32]);
    }
    integers(spec, vec![value.round_ties_even() as i64])
}

/// Start a network; what comes is the output `name` of each item.
pub(crate) fn start(
    networks: &dyn Networks,
    role: Role,
    items: Vec<TensorMap>,
    name: String,
) -> Result<Pending<Vec<Tensor>>, Error> {
    let results = start_all(networks, role, items)?;
    Ok(Pending::new(move || {
        let take = |mut map: TensorMap| {
            map.remove(&name).ok_or_else(|| interface(role, format!("gave no output {name:?}")))
        };
        results.wait()?.into_iter().map(take).collect()
    }))
}

/// Start a network; what comes is all outputs of each item.
pub(crate) fn start_all(
    networks: &dyn Networks,
    role: Role,
    items: Vec<TensorMap>,
) -> Result<Pending<Vec<TensorMap>>, Error> {
    let count = items.len();
    let failed = move |source| Error::Network { role, source };
    let run = networks.submit(role, items).map_err(failed)?;
    Ok(Pending::new(move || {
        let results = run.wait().map_err(failed)?;
        if results.len() == count {
            return Ok(results);
        }
        let detail = format!("gave {} results for {count} items", results.len());
        Err(interface(role, detail))
    }))
}

/// Start a network as [`start`] does; what comes is the values of the output of each item: `expected`, all finite.
pub(crate) fn start_values(
    networks: &dyn Networks,
    role: Role,
    items: Vec<TensorMap>,
    name: String,
    expected: usize,
) -> Result<Pending<Vec<Vec<f32>>>, Error> {
    let pending = start(networks, role, items, name.clone())?;
    let values = move |(item, tensor): (usize, Tensor)| {
        if tensor.len() != expected {
            let shape = tensor.shape();
            let detail =
                format!("output {name:?} has shape {shape:?}, {expected} values were expected");
            return Err(interface(role, detail));
        }
        let values = tensor.to_f32().map_err(|source| Error::Tensor { role, source })?;
        if values.iter().all(|v| v.is_finite()) {
            Ok(values.into_owned())
        } else {
            Err(Error::NotFinite { role, item })
        }
    };
    Ok(Pending::new(move || pending.wait()?.into_iter().enumerate().map(values).collect()))
}
