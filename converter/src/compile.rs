//! Compilation: every NPU shard of a pack through the vendor's toolkit.

use crate::ConvertProgress;
use crate::golden::device_tensors;
use crate::request::Teller;
use crate::toolkit::{ShardToCompile, Toolkit};
use crate::{ConvertError, PackWriter};
use rockshard_manifest::{Compiled, CoreId, Model};
use std::fs;

/// Compile the NPU shards of the models and add the results to the pack and to the models. Shards that an interrupted conversion
/// compiled are kept.
///
/// # Errors
/// The toolkit is not there, or some shards were not compiled; all that can be are compiled first.
pub(crate) fn compile_models(
    toolkit: &Toolkit,
    models: &mut [Model],
    writer: &mut PackWriter,
    teller: &mut Teller,
) -> Result<(), ConvertError> {
    let version = Toolkit::version(&toolkit.python)?;
    let notes = writer.scratch().join("compiled");
    fs::create_dir_all(&notes).map_err(ConvertError::io(&notes))?;
    let note = |shard: &str| notes.join(format!("{shard}.json"));
    let rknn = |shard: &str| format!("shards/{shard}.rknn");
    let places: Vec<(usize, usize)> = models
        .iter()
        .enumerate()
        .flat_map(|(m, model)| {
            model
                .shards
                .iter()
                .enumerate()
                .filter(|(_, s)| s.core != CoreId::Host)
                .map(move |(i, _)| (m, i))
        })
        .collect();
    let total = places.len();
    let mut results: Vec<Option<Compiled>> = vec![None; total];
    let mut done = 0;
    for (result, &(m, i)) in results.iter_mut().zip(&places) {
        let shard = &models[m].shards[i].name;
        let known = fs::read(note(shard)).ok().filter(|_| writer.is_finished(&rknn(shard)));
        *result = known.and_then(|text| serde_json::from_slice(&text).ok());
        if result.is_some() {
            writer.add(&rknn(shard), |_| Ok(()))?;
            done += 1;
        }
    }
    let open: Vec<usize> = (0..total).filter(|&p| results[p].is_none()).collect();
    // The compiler runs in a directory of its own.
    let root = std::path::absolute(writer.root()).map_err(ConvertError::io(writer.root()))?;
    let job = |&place: &usize| {
        let (m, i) = places[place];
        let (model, root) = (&models[m], root.as_path());
        let shard = &model.shards[i];
        let golden =
            toolkit.verify.then(|| Box::new(move || device_tensors(model, i, 0, root)) as Box<_>);
        ShardToCompile { name: shard.name.clone(), model: root.join(&shard.file), golden }
    };
    let jobs: Vec<ShardToCompile<'_>> = open.iter().map(job).collect();
    let mut failures = Vec::new();
    let scratch = root.join("scratch/toolkit");
    toolkit.compile(&version, &jobs, &scratch, |index, outcome| {
        let (m, i) = places[open[index]];
        match outcome {
            Ok(product) => {
                let shard = &models[m].shards[i].name;
                let compiled = Compiled { file: rknn(shard), ..product.compiled };
                let text = serde_json::to_vec(&compiled).unwrap_or_default();
                fs::write(note(shard), text).map_err(ConvertError::io(note(shard)))?;
                writer.add(&compiled.file, |path| fs::rename(&product.rknn, path))?;
                results[open[index]] = Some(compiled);
            }
            Err(failure) => {
                tracing::warn!("{failure}");
                failures.push(failure);
            }
        }
        done += 1;
        teller.tell(ConvertProgress::Compile(models[m].name.clone(), done, total))
    })?;
    drop(jobs);
    if !failures.is_empty() {
        return Err(ConvertError::Compile { failures, total });
    }
    for (result, (m, i)) in results.into_iter().zip(places) {
        models[m].shards[i].compiled = result;
    }
    Ok(())
}
