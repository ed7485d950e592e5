//! `decoder.safetensors`: a decoder's weights by name, in the precision they are used in. Its shape is in the file's metadata.
//!
//! Names: `embeddings`, `layers.N.{attention_norm,feed_norm}`, `norm`, and the matrices `layers.N.{qkv,output,gate_up,down}` and `head`, which have a row of
//! inputs for each output: queries, keys and values in one, and gate and up in one, in this order. A matrix is float32 under its name; or of 8 bits, in
//! `NAME.i8` and `NAME.i8_scales` (one an output), and where single tokens take 4 bits besides in `NAME.q4` and `NAME.q4_scales`, in the order that
//! `four.rs` describes.

use super::four::{self, BLOCK, Four};
use super::matrix::{Kernels, Matrix, Stored};
use super::shape::DecoderShape;
use bytes::Bytes;
use half::f16;
use rockshard_tensor::MappedFile;
use safetensors::tensor::{Dtype, SafeTensors};
use std::marker::PhantomData;
use std::path::Path;

/// Key of the shape in the metadata.
pub(super) const SHAPE: &str = "decoder";

/// Values of a mapped file.
pub(super) struct View<T> {
    bytes: Bytes,
    values: PhantomData<T>,
}

impl<T: bytemuck::AnyBitPattern> View<T> {
    pub fn get(&self) -> &[T] {
        // Checked when it was made.
        bytemuck::try_cast_slice(&self.bytes).unwrap_or_default()
    }
}

/// Rows of a token's embedding.
pub(super) enum Table {
    Float(View<f32>),
    Half(View<f16>),
}

impl Table {
    /// Append a row's values.
    pub fn row(&self, row: usize, width: usize, to: &mut Vec<f32>) {
        let range = row * width..(row + 1) * width;
        match self {
            Table::Float(values) => to.extend_from_slice(&values.get()[range]),
            Table::Half(values) => to.extend(values.get()[range].iter().map(|v| v.to_f32())),
        }
    }
}

/// The bits that weights are stored in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightBits {
    /// float32, as they came.
    #[default]
    ThirtyTwo,
    /// 8 bits, one scale an output.
    Eight,
    /// 4 bits for single tokens, one scale for 32 values; 8 bits for many at once.
    Four,
}

impl WeightBits {
    /// The bits.
    pub fn bits(self) -> u32 {
        match self {
            WeightBits::ThirtyTwo => 32,
            WeightBits::Eight => 8,
            WeightBits::Four => 4,
        }
    }

    /// The precision that has so many bits.
    pub fn of(bits: u32) -> Option<Self> {
        [WeightBits::ThirtyTwo, WeightBits::Eight, WeightBits::Four]
            .into_iter()
            .find(|w| w.bits() == bits)
    }
}

/// An open file.
pub(super) struct Reader {
    file: MappedFile,
    bytes: Bytes,
    header: usize,
    metadata: safetensors::tensor::Metadata,
}

impl Reader {
    pub fn open(path: &Path) -> Result<(Self, DecoderShape), String> {
        let file = MappedFile::open(path).map_err(|e| e.to_string())?;
        let bytes = file.bytes().clone();
        let (header, metadata) = SafeTensors::read_metadata(&bytes)
            .map_err(|e| format!("not a safetensors file: {e}"))?;
        let shape = metadata.metadata().as_ref().and_then(|m| m.get(SHAPE));
        let shape = shape.ok_or("its metadata does not describe a decoder")?;
        let shape: DecoderShape = serde_json::from_str(shape).map_err(|e| e.to_string())?;
        if let Some(problem) = shape.problem() {
            return Err(problem);
        }
        Ok((Reader { file, bytes, header: header + 8, metadata }, shape))
    }

    /// What was read to be packed is needed no more.
    pub fn release_pages(&self) {
        self.file.release_pages();
    }

    fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    pub fn view<T: bytemuck::AnyBitPattern>(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
    ) -> Result<View<T>, String> {
        let info = self.metadata.info(name).ok_or_else(|| format!("there is no {name:?}"))?;
        if info.dtype != dtype || info.shape != shape {
            return Err(format!(
                "{name:?} is {:?} {:?} instead of {dtype:?} {shape:?}",
                info.dtype, info.shape
            ));
        }
        let (from, to) = info.data_offsets;
        let (from, to) = (self.header + from, self.header + to);
        if to > self.bytes.len() {
            return Err(format!("{name:?} reaches beyond the end of the file"));
        }
        let bytes = self.bytes.slice(from..to);
        let count: usize = shape.iter().product();
        match bytemuck::try_cast_slice::<u8, T>(&bytes) {
            Ok(values) if values.len() == count => Ok(View { bytes, values: PhantomData }),
            _ => Err(format!("{name:?} has no {count} aligned values")),
        }
    }

    pub fn table(&self, name: &str, shape: &[usize]) -> Result<Table, String> {
        match self.metadata.info(name).map(|info| info.dtype) {
            Some(Dtype::F16) => Ok(Table::Half(self.view(name, Dtype::F16, shape)?)),
            _ => Ok(Table::Float(self.view(name, Dtype::F32, shape)?)),
        }
    }

    pub fn matrix(
        &self,
        kernels: &Kernels,
        name: &str,
        outputs: usize,
        depth: usize,
    ) -> Result<Matrix, String> {
        if self.has(name) {
            let stored = Stored::Float(self.view(name, Dtype::F32, &[outputs, depth])?);
            return Ok(Matrix { outputs, depth, stored, single: None });
        }
        let values = self.view(&format!("{name}.i8"), Dtype::I8, &[outputs, depth])?;
        let values = kernels.packed(values.get(), outputs, depth);
        let scales = self.view(&format!("{name}.i8_scales"), Dtype::F32, &[outputs])?;
        let stored = Stored::Eight { values, scales };
        let mut matrix = Matrix { outputs, depth, stored, single: None };
        let four = format!("{name}.q4");
        if self.has(&four) {
            if !depth.is_multiple_of(BLOCK) {
                return Err(format!("{four:?} of {depth} inputs, which are no blocks of {BLOCK}"));
            }
            let [words, scales] = four::shapes(outputs, depth);
            let words = self.view(&four, Dtype::I16, &words)?;
            let scales = self.view(&format!("{four}_scales"), Dtype::F16, &scales)?;
            matrix.single = Some(Four { words, scales });
        }
        Ok(matrix)
    }
}
