//! Tensors that are named on the command line.

use anyhow::{Context, Result};
use std::path::Path;

/// Tensors from `NAME=FILE.npy` arguments.
pub fn read_inputs(arguments: &[String]) -> Result<Vec<(String, rockshard_tensor::Tensor)>> {
    arguments
        .iter()
        .map(|argument| {
            let (name, file) = argument
                .split_once('=')
                .with_context(|| format!("input {argument:?} is not NAME=FILE.npy"))?;
            let bytes =
                rockshard_tensor::map_file(Path::new(file)).with_context(|| file.to_owned())?;
            let tensor = rockshard_tensor::read_npy(&bytes).with_context(|| file.to_owned())?;
            Ok((name.to_owned(), tensor))
        })
        .collect()
}
