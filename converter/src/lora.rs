//! `--lora`: low-rank updates fused into the weights, `W + scale * alpha / rank * up * down` (Hu et al. 2021, arXiv 2106.09685).
//!
//! A key of a LoRA file names a module, in one of the spellings of [`keys`]. The weights of that module are found by the module
//! path in the names of the graph's nodes, which both exporters leave there, so that an exporter's names for weights do not matter.

mod error;
mod file;
mod keys;
mod update;

use crate::ConvertError;
use bytes::Bytes;
use file::Contents;
use rockshard_graph::{Graph, Op, ValueId};
use rockshard_manifest::FusedLora;
use rockshard_tensor::{MappedFile, Tensor};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use update::{Update, updates};

pub use error::LoraError;
pub use file::LoraFile;

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
            let updates = read(file, Contents::open(&file.path)?)?;
            Ok::<_, ConvertError>((file.clone(), updates))
        };
        Ok(Loras { files: files.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Refuse a file of which nothing fits any of the parts, or something does not fit the weight that it names: graphs as imported, by part
    /// name (`None` as in [`Loras::fuse`]).
    ///
    /// # Errors
    /// There is one, or a part gives its error.
    pub fn check<'a>(
        &self,
        parts: impl Iterator<Item = Result<(Option<&'a str>, Graph), ConvertError>>,
    ) -> Result<(), ConvertError> {
        let mut found = vec![false; self.files.len()];
        for part in parts {
            let (part, graph) = part?;
            let weights = module_weights(&graph);
            for ((file, updates), found) in self.files.iter().zip(&mut found) {
                for update in updates.iter().filter(|u| u.is_for(part)) {
                    let Some(&weight) = weights.get(&update.module) else { continue };
                    let Some(tensor) = graph.constant(weight) else { continue };
                    let checked = update.check(&graph.value(weight).name, tensor.shape());
                    checked.map_err(failed(&file.path))?;
                    *found = true;
                }
            }
        }
        let mut without = self.files.iter().zip(found).filter(|(_, found)| !found);
        without.next().map_or(Ok(()), |((file, updates), _)| {
            Err(failed(&file.path)(LoraError::NoMatch(updates[0].spelling.clone())))
        })
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
            let new = fused(graph, weight, old, updates)?;
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

/// A weight with updates added.
fn fused(
    graph: &Graph,
    weight: ValueId,
    old: &Tensor,
    updates: Vec<(&Path, &mut Update)>,
) -> Result<Tensor, ConvertError> {
    let name = &graph.value(weight).name;
    let mut values = old.to_f32().map_err(ConvertError::tensor(name))?.into_owned();
    for (file, update) in updates {
        update.add_to(&mut values, name, old.shape()).map_err(failed(file))?;
        update.matched = true;
    }
    let new = Tensor::from_f32(old.shape(), values).to_float(old.dtype());
    new.map_err(ConvertError::tensor(name))
}

/// The updates of a file, at least one.
fn read(file: &LoraFile, contents: Contents) -> Result<Vec<Update>, ConvertError> {
    let updates = updates(contents, file.scale).map_err(failed(&file.path))?;
    if updates.is_empty() {
        return Err(failed(&file.path)(LoraError::None));
    }
    Ok(updates)
}

fn failed(path: &Path) -> impl FnOnce(LoraError) -> ConvertError {
    let path = path.to_owned();
    move |problem| ConvertError::Lora { path, problem }
}

/// Fuse the bytes of a LoRA file into a graph's weights, in memory; `file` names it in errors. Gives how many of its modules the graph has.
///
/// # Errors
/// It is no LoRA file, or an update does not fit its weight.
pub fn fuse_lora(bytes: &Bytes, file: &LoraFile, graph: &mut Graph) -> Result<usize, ConvertError> {
    let mut updates = read(file, Contents::decode(bytes, None, &file.path)?)?;
    let weights = module_weights(graph);
    for update in &mut updates {
        let Some(&weight) = weights.get(&update.module) else { continue };
        let Some(old) = graph.constant(weight) else { continue };
        let new = fused(graph, weight, old, vec![(&file.path, update)])?;
        graph.value_mut(weight).constant = Some(new);
    }
    Ok(updates.iter().filter(|update| update.matched).count())
}
