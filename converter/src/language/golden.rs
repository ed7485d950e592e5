//! Logits to judge a pack's language model by: those that the source directory has, or else what rten gives for the exported files as they are.

use crate::family::Language;
use crate::{ConvertError, PackWriter};
use rockshard_manifest::LOGITS_FILE;
use rockshard_vlm::{LanguageError, LanguageModel, LogitsRecord};
use std::path::Path;
use std::sync::Arc;

/// Where a source directory has logits that another engine gave (`tools/record_language_logits.py`).
const GIVEN: &str = "language_logits.safetensors";
/// The engine where there are none.
const ENGINE: &str = "rten, of the exported files";
/// Positions that a record needs.
const CONTEXT: usize = 64;

/// Add the logits to a pack.
pub(crate) fn record_logits(
    language: &Language,
    source: &Path,
    writer: &mut PackWriter,
) -> Result<(), ConvertError> {
    let given = source.join(GIVEN);
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source: LanguageError| ConvertError::LanguageLogits { path, source }
    };
    let record = if given.is_file() {
        LogitsRecord::read(&given).map_err(fail(&given))?
    } else {
        let export = &language.export;
        let model = LanguageModel::open_export(export, CONTEXT, None);
        let model = model.map_err(fail(&export.decoder))?;
        LogitsRecord::new(Arc::new(model), ENGINE).map_err(fail(&export.decoder))?
    };
    writer.add(LOGITS_FILE, |path| record.write(path))
}
