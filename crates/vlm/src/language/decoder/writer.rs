//! Writing `decoder.safetensors`, a tensor at a time, so that no more than one matrix of a model is in memory.

use super::file::{SHAPE, WeightBits};
use super::four::{self, BLOCK};
use super::shape::DecoderShape;
use half::f16;
use safetensors::tensor::Dtype;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// A tensor's place in the file.
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    from: u64,
    bytes: u64,
    written: bool,
}

/// A decoder's weights on their way into a file. Names are those of the format: see `file.rs`.
pub struct DecoderWriter {
    bits: WeightBits,
    file: File,
    entries: BTreeMap<String, Entry>,
}

impl DecoderWriter {
    /// Begin a file of this shape, its matrices in so many bits.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, shape: &DecoderShape, bits: WeightBits) -> io::Result<Self> {
        let mut tensors = tensors(shape, bits);
        // Values of many bytes first, so that all are aligned.
        tensors.sort_by_key(|(_, dtype, _)| std::cmp::Reverse(dtype.bitsize()));
        let mut entries = BTreeMap::new();
        let mut described = serde_json::Map::new();
        let mut from = 0;
        for (name, dtype, shape) in tensors {
            let bytes = (shape.iter().product::<usize>() * dtype.bitsize() / 8) as u64;
            let offsets = [from, from + bytes];
            described.insert(
                name.clone(),
                json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }),
            );
            entries.insert(name, Entry { dtype, shape, from, bytes, written: false });
            from += bytes;
        }
        let shape = serde_json::to_string(shape)?;
        described.insert("__metadata__".into(), json!({ SHAPE: shape }));
        let mut header = serde_json::to_vec(&described)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = File::create(path)?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let start = 8 + header.len() as u64;
        entries.values_mut().for_each(|entry| entry.from += start);
        file.set_len(start + from)?;
        Ok(DecoderWriter { bits, file, entries })
    }

    fn put(&mut self, name: &str, dtype: Dtype, bytes: &[u8]) -> io::Result<()> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let entry =
            self.entries.get_mut(name).ok_or_else(|| wrong(format!("no {name:?} in a decoder")))?;
        if entry.dtype != dtype || entry.bytes != bytes.len() as u64 {
            let Entry { dtype: wanted, shape, .. } = entry;
            return Err(wrong(format!(
                "{name:?} must be {wanted:?} {shape:?}, it has {} bytes",
                bytes.len()
            )));
        }
        entry.written = true;
        self.file.seek(SeekFrom::Start(entry.from))?;
        self.file.write_all(bytes)
    }

    /// The embeddings of all tokens, a row each; as float16 where matrices are not float32.
    ///
    /// # Errors
    /// The file cannot be written, or another number of values.
    pub fn embeddings(&mut self, values: &[f32]) -> io::Result<()> {
        if self.bits == WeightBits::ThirtyTwo {
            return self.put("embeddings", Dtype::F32, bytemuck::cast_slice(values));
        }
        let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
        self.put("embeddings", Dtype::F16, bytemuck::cast_slice(&halves))
    }

    /// The weights of a norm.
    ///
    /// # Errors
    /// The file cannot be written, or another number of values.
    pub fn norm(&mut self, name: &str, values: &[f32]) -> io::Result<()> {
        self.put(name, Dtype::F32, bytemuck::cast_slice(values))
    }

    /// A matrix with a row of `depth` values for each output.
    ///
    /// # Errors
    /// The file cannot be written, or another number of values.
    pub fn matrix(&mut self, name: &str, values: &[f32], depth: usize) -> io::Result<()> {
        if self.bits == WeightBits::ThirtyTwo {
            return self.put(name, Dtype::F32, bytemuck::cast_slice(values));
        }
        let (eight, scales) = eight_bits(values, depth);
        self.put(&format!("{name}.i8"), Dtype::I8, bytemuck::cast_slice(&eight))?;
        self.put(&format!("{name}.i8_scales"), Dtype::F32, bytemuck::cast_slice(&scales))?;
        if self.bits == WeightBits::Four && depth.is_multiple_of(BLOCK) {
            let (words, scales) = four::pack(values, depth);
            self.put(&format!("{name}.q4"), Dtype::I16, bytemuck::cast_slice(&words))?;
            self.put(&format!("{name}.q4_scales"), Dtype::F16, bytemuck::cast_slice(&scales))?;
        }
        Ok(())
    }

    /// All is written.
    ///
    /// # Errors
    /// Something is not.
    pub fn finish(self) -> io::Result<()> {
        match self.entries.iter().find(|(_, entry)| !entry.written) {
            Some((name, _)) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} was not written"),
            )),
            None => self.file.sync_all(),
        }
    }
}

/// What a file has: names, types and shapes.
fn tensors(shape: &DecoderShape, bits: WeightBits) -> Vec<(String, Dtype, Vec<usize>)> {
    let DecoderShape { layers, width, inner, vocabulary, .. } = *shape;
    let embeddings = if bits == WeightBits::ThirtyTwo { Dtype::F32 } else { Dtype::F16 };
    let mut tensors = vec![
        ("embeddings".to_owned(), embeddings, vec![vocabulary, width]),
        ("norm".to_owned(), Dtype::F32, vec![width]),
    ];
    let mut matrices = vec![("head".to_owned(), vocabulary, width)];
    for layer in 0..layers {
        let name = |part: &str| format!("layers.{layer}.{part}");
        let projected = shape.queries() + 2 * shape.keys();
        tensors.extend(
            ["attention_norm", "feed_norm"].map(|norm| (name(norm), Dtype::F32, vec![width])),
        );
        matrices.push((name("qkv"), projected, width));
        matrices.push((name("output"), width, shape.queries()));
        matrices.push((name("gate_up"), 2 * inner, width));
        matrices.push((name("down"), width, inner));
    }
    for (name, outputs, depth) in matrices {
        if bits == WeightBits::ThirtyTwo {
            tensors.push((name, Dtype::F32, vec![outputs, depth]));
            continue;
        }
        tensors.push((format!("{name}.i8"), Dtype::I8, vec![outputs, depth]));
        tensors.push((format!("{name}.i8_scales"), Dtype::F32, vec![outputs]));
        if bits == WeightBits::Four && depth.is_multiple_of(BLOCK) {
            let [words, scales] = four::shapes(outputs, depth);
            tensors.push((format!("{name}.q4"), Dtype::I16, words));
            tensors.push((format!("{name}.q4_scales"), Dtype::F16, scales));
        }
    }
    tensors
}

/// Rows as 8 bits, the largest value of each 127.
fn eight_bits(values: &[f32], depth: usize) -> (Vec<i8>, Vec<f32>) {
    let mut eight = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / depth);
    for row in values.chunks_exact(depth) {
        let scale = row.iter().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0;
        let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
        eight.extend(row.iter().map(|v| (v * inverse).round_ties_even() as i8));
        scales.push(scale);
    }
    (eight, scales)
}
