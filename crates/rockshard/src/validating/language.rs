//! Whether a vision-language pack says what it should: its language model against recorded logits, and the words about a picture with the features of the
//! device and of the reference.

use crate::{Captioner, CaptionerOptions, Error, take_cores};
use rockshard_devices::DeviceName;
use rockshard_manifest::{Family, LOGITS_FILE};
use rockshard_pack::Pack;
use rockshard_runtime::Cores;
use rockshard_validation::{LanguageReport, LogitsAgreement, RecordedLogits};
use rockshard_vlm::{LogitsRecord, Rgb};

/// A drawn scene: a red disc on blue.
pub fn test_picture() -> Rgb {
    const SIDE: usize = 512;
    let pixel = |at: usize| {
        let (x, y) = (at % SIDE, at / SIDE);
        let distance = x.abs_diff(SIDE / 3).pow(2) + y.abs_diff(SIDE / 2).pow(2);
        if distance < (SIDE / 5).pow(2) { [220, 40, 40] } else { [40, 60, 200] }
    };
    Rgb { width: SIDE, height: SIDE, bytes: (0..SIDE * SIDE).flat_map(pixel).collect() }
}

/// Judge the language model of a pack: its logits against those that were recorded when it was converted, and, where there is a picture, what is said of it with
/// the device's features and with the reference's. `None` for a pack without a language model.
///
/// # Errors
/// A pack that pictures cannot be described with, or a network that fails.
pub fn validate_language(
    pack: &Pack,
    cores: &Cores,
    picture: Option<&Rgb>,
    threshold: f64,
) -> Result<Option<LanguageReport>, Error> {
    let manifest = pack.manifest();
    if manifest.family != Family::VisionLanguage || manifest.conversion.language.is_none() {
        return Ok(None);
    }
    // The whole picture alone: one view.
    let options = CaptionerOptions { grid: Some(1), ..CaptionerOptions::default() };
    let captioner = Captioner::load(cores, pack, &options)?;
    let mut logits = Vec::new();
    if manifest.files.contains_key(LOGITS_FILE) {
        let record = LogitsRecord::read(&pack.file(LOGITS_FILE)?)?;
        let found = record.repeat(captioner.language().clone())?;
        let agreement = LogitsAgreement::of(&record.logits, &found);
        logits.push(RecordedLogits { engine: record.engine, agreement });
    }
    let words = match picture {
        Some(picture) => Some(captioner.words(&take_cores(DeviceName::Cpu)?, pack, picture)?),
        None => None,
    };
    Ok(Some(LanguageReport::new(logits, words, threshold)))
}
