//! `--lora`: low-rank updates fused into the weights, `W + scale * alpha / rank * up * down` (Hu et al. 2021, arXiv 2106.09685).
//!
//! A key of a LoRA file names a module, in one of the spellings of [`keys`]. The weights of that module are found by the module
//! path in the names of the graph's nodes, which both exporters leave there, so that an exporter's names for weights do not matter.

mod keys;

use crate::ConvertError;
use keys::{Alphas, Half, split_key};
use rockshard_graph::{Graph, Op, ValueId};
use rockshard_kernels::{Precision, evaluate};
use rockshard_manifest::FusedLora;
use rockshard_tensor::{MappedFile, Tensor, read_safetensors};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use keys::LoraError;

/// A LoRA file and how much of it to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraFile {
    /// safetensors file.
    pub path: PathBuf,
    /// Factor on the update; 1 is the update as trained.
    pub scale: f32,
}

impl FromStr for LoraFile {
    type Err = crate::options::OptionError;

    /// `FILE` or `FILE:SCALE`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((path, scale)) = text.rsplit_once(':')
            && let Ok(scale) = scale.parse::<f32>()
        {
            if !scale.is_finite() || path.is_empty() {
                return Err(crate::options::OptionError {
                    value: text.into(),
                    expected: "FILE or FILE:SCALE with a finite scale",
                });
            }
            return Ok(LoraFile { path: path.into(), scale });
        }
        Ok(LoraFile { path: text.into(), scale: 1.0 })
    }
}

/// One module's update.
struct Update {
    /// Module as the file spells it.
    spelling: String,
    /// Part it is for; any when the file does not say.
    part: Option<&'static str>,
    /// Module path in the common spelling.
    module: String,
    /// `[rank, in]`, or `[rank, in, h, w]` for a convolution.
    down: Tensor,
    /// `[out, rank]`, or `[out, rank, 1, 1]`.
    up: Tensor,
    /// Scale times alpha over rank.
    factor: f32,
    matched: bool,
}

/// The updates of all LoRA files of a conversion.
pub(crate) struct Loras {
    files: Vec<(LoraFile, Vec<Update>)>,
}

impl Loras {
    /// Read the files.
    ///
    /// # Errors
    /// A file cannot be read, is no LoRA, or has half of an update.
    pub fn open(files: &[LoraFile]) -> Result<Self, ConvertError> {
        let open = |file: &LoraFile| {
            let fail = |problem: LoraError| ConvertError::Lora { path: file.path.clone(), problem };
            let updates =
                updates(read_safetensors(&file.path)?, &Alphas::beside(&file.path)?, file.scale)
                    .map_err(fail)?;
            if updates.is_empty() {
                return Err(fail(LoraError::None));
            }
            Ok((file.clone(), updates))
        };
        Ok(Loras { files: files.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Refuse a file of which nothing fits any of the parts: graphs as imported, by part name (`None` as in [`Loras::fuse`]).
    ///
    /// # Errors
    /// There is one, or a part gives its error.
    pub fn check<'a>(
        &self,
        parts: impl Iterator<Item = Result<(Option<&'a str>, Graph), ConvertError>>,
    ) -> Result<(), ConvertError> {
        let modules = parts
            .map(|p| p.map(|(part, graph)| (part, module_weights(&graph))))
            .collect::<Result<Vec<_>, _>>()?;
        for (file, updates) in &self.files {
            let fits = |u: &Update| {
                modules
                    .iter()
                    .any(|(part, weights)| u.is_for(*part) && weights.contains_key(&u.module))
            };
            if !updates.iter().any(fits) {
                let problem = LoraError::NoMatch(updates[0].spelling.clone());
                return Err(ConvertError::Lora { path: file.path.clone(), problem });
            }
        }
        Ok(())
    }

    /// Fuse what belongs to a part into its graph; to a file that stands alone (`None`), whatever fits it. The new weights go to a file
    /// in `scratch` and are mapped from there.
    ///
    /// # Errors
    /// An update does not fit its weight, or the file cannot be written.
    pub fn fuse(
        &mut self,
        graph: &mut Graph,
        part: Option<&str>,
        scratch: &Path,
    ) -> Result<Option<MappedFile>, ConvertError> {
        let weights = module_weights(graph);
        let mut chosen: BTreeMap<ValueId, Vec<(&Path, &mut Update)>> = BTreeMap::new();
        for (file, updates) in &mut self.files {
            for update in updates.iter_mut().filter(|u| u.is_for(part)) {
                if let Some(&weight) = weights.get(&update.module) {
                    chosen.entry(weight).or_default().push((&file.path, update));
                }
            }
        }
        if chosen.is_empty() {
            return Ok(None);
        }
        let path = scratch.join(format!("{}.lora", part.unwrap_or("model")));
        let mut out = BufWriter::with_capacity(
            1 << 20,
            File::create(&path).map_err(ConvertError::io(&path))?,
        );
        let mut places: Vec<(ValueId, usize, Tensor)> = Vec::new();
        let mut end = 0;
        for (weight, updates) in chosen {
            let Some(old) = graph.constant(weight) else { continue };
            let mut values =
                old.to_f32().map_err(ConvertError::tensor(&graph.value(weight).name))?.into_owned();
            for (file, update) in updates {
                let fail = |problem| ConvertError::Lora { path: file.to_owned(), problem };
                update.add_to(&mut values, old.shape()).map_err(fail)?;
                update.matched = true;
            }
            let new = Tensor::from_f32(old.shape(), values)
                .to_float(old.dtype())
                .map_err(ConvertError::tensor(&graph.value(weight).name))?;
            out.write_all(new.bytes()).map_err(ConvertError::io(&path))?;
            // Only type and shape are needed from here on.
            places.push((weight, end, old.clone()));
            end += new.bytes().len();
        }
        out.into_inner().map_err(|e| ConvertError::io(&path)(e.into_error()))?;
        let file = MappedFile::open(&path).map_err(ConvertError::io(&path))?;
        for (weight, start, old) in places {
            let bytes = file.bytes().slice(start..start + old.bytes().len());
            let new = Tensor::new(old.dtype(), old.shape().to_vec(), bytes)
                .map_err(ConvertError::tensor(&graph.value(weight).name))?;
            graph.value_mut(weight).constant = Some(new);
        }
        Ok(Some(file))
    }

    /// What was fused, for the manifest.
    pub fn finish(self) -> Vec<FusedLora> {
        let record = |(file, updates): (LoraFile, Vec<Update>)| {
            let unmatched: Vec<String> =
                updates.iter().filter(|u| !u.matched).map(|u| u.spelling.clone()).collect();
            let name =
                file.path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
            for key in &unmatched {
                tracing::warn!(
                    "{}: {key} fits no weight of the model and was not fused",
                    file.path.display()
                );
            }
            FusedLora {
                file: name,
                scale: file.scale,
                fused: updates.len() - unmatched.len(),
                unmatched,
            }
        };
        self.files.into_iter().map(record).collect()
    }
}

/// The weight of each module with a linear layer or a convolution, by module path.
fn module_weights(graph: &Graph) -> BTreeMap<String, ValueId> {
    let weighted = graph.nodes().iter().filter(|n| matches!(n.op, Op::MatMul | Op::Conv { .. }));
    let weight = |n: &rockshard_graph::Node| {
        let weight = *n.inputs.get(1).filter(|&&v| graph.constant(v).is_some())?;
        let (path, _) = n.name.rsplit_once('/')?;
        Some((keys::module(path), weight))
    };
    weighted.filter_map(weight).collect()
}

fn updates(
    tensors: BTreeMap<String, Tensor>,
    alphas: &Alphas,
    scale: f32,
) -> Result<Vec<Update>, LoraError> {
    let mut modules: BTreeMap<String, BTreeMap<Half, Tensor>> = BTreeMap::new();
    for (key, tensor) in tensors {
        let (module, half) = split_key(&key)?;
        modules.entry(module).or_default().insert(half, tensor);
    }
    let update = |(spelling, mut halves): (String, BTreeMap<Half, Tensor>)| {
        let (down, up) = match (halves.remove(&Half::Down), halves.remove(&Half::Up)) {
            (Some(down), Some(up)) => (down, up),
            (down, _) => {
                return Err(LoraError::Half {
                    module: spelling,
                    missing: if down.is_none() { "down" } else { "up" },
                });
            }
        };
        let rank = down.shape().first().copied().unwrap_or(0);
        if down.shape().len() < 2 || up.shape().len() < 2 || up.shape()[1] != rank || rank == 0 {
            return Err(LoraError::Shape {
                module: spelling,
                down: down.shape().to_vec(),
                up: up.shape().to_vec(),
                weight: Vec::new(),
            });
        }
        let (part, module) = keys::part_and_module(&spelling);
        let stored = halves
            .remove(&Half::Alpha)
            .and_then(|t| t.to_f32().ok().and_then(|v| v.first().copied()));
        let factor =
            scale * stored.map_or_else(|| alphas.factor(part, rank), |alpha| alpha / rank as f32);
        Ok(Update { spelling, part, module, down, up, factor, matched: false })
    };
    modules.into_iter().map(update).collect()
}

impl Update {
    /// Whether the file leaves this update for a part; a part without a name takes any.
    fn is_for(&self, part: Option<&str>) -> bool {
        self.part.is_none() || part.is_none() || self.part == part
    }

    /// Add the update to a weight: `[in, out]` of a product, `[out, in, h, w]` of a convolution.
    fn add_to(&self, values: &mut [f32], shape: &[usize]) -> Result<(), LoraError> {
        let wrong = || LoraError::Shape {
            module: self.spelling.clone(),
            down: self.down.shape().to_vec(),
            up: self.up.shape().to_vec(),
            weight: shape.to_vec(),
        };
        let (rank, out) = (self.down.shape()[0], self.up.shape()[0]);
        let inner = self.down.len() / rank;
        let transposed = shape.len() == 2;
        let expected = if transposed { vec![inner, out] } else { vec![out, inner] };
        let flat =
            if transposed { shape.to_vec() } else { vec![shape[0], shape[1..].iter().product()] };
        // A convolution's update has the kernel's extents on `down`, or is of 1x1 kernels throughout.
        let kernels =
            self.down.shape()[1..] == shape[1..] || self.down.shape().len() == 2 || transposed;
        if flat != expected || self.up.len() != out * rank || !kernels {
            return Err(wrong());
        }
        let (up, down) = (self.up.reshape([out, rank]), self.down.reshape([rank, inner]));
        let (Ok(up), Ok(down)) = (up, down) else { return Err(wrong()) };
        let product = evaluate(&Op::MatMul, &[&up, &down], Precision::F32).map_err(|_| wrong())?;
        let product = product.to_f32().map_err(|_| wrong())?;
        for (o, row) in product.chunks_exact(inner).enumerate() {
            for (i, delta) in row.iter().enumerate() {
                values[if transposed { i * out + o } else { o * inner + i }] += self.factor * delta;
            }
        }
        Ok(())
    }
}
