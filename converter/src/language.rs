//! A language model in the form that it runs fastest in: the weights of a decoder are found in any export of it, packed, and written in the bits that were
//! asked for. What was read is believed only when it says what the export says.

mod constants;
mod golden;
mod layers;
mod products;

pub(crate) use golden::record_logits;

use crate::ConvertError;
use layers::read_layers;
use rockshard_manifest::LanguageConversion;
use rockshard_onnx::load;
use rockshard_vlm::{DECODER_FILE, DecoderShape, Export, LanguageModel, Session, WeightBits};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Largest difference of logits from the export's, over the largest of these, that is still the same model.
const AGREEMENT: f64 = 1e-3;
/// Tokens that both forms are fed, in pieces; more than one, since rten rounds a single one to 8 bits where weights have 4.
const FED: [u32; 4] = [13, 2, 6, 2];
/// Positions that the check needs.
const CONTEXT: usize = 32;

/// Read an exported decoder as the model's configuration describes it, and write it to `to`. Where it is no decoder of the known kind nothing is written, and it
/// is said why.
///
/// # Errors
/// `to` cannot be written, or fewer than 32 bits were asked of a decoder that cannot be read.
pub fn convert_language(
    export: &Export,
    config: &Value,
    bits: WeightBits,
    to: &Path,
) -> Result<LanguageConversion, ConvertError> {
    match (written(export, config, bits, to), bits) {
        (Ok(difference), _) => Ok(LanguageConversion::Decoder { bits: bits.bits(), difference }),
        (Err(Declined::Io(source)), _) => Err(ConvertError::io(to)(source)),
        (Err(Declined::Reason(reason)), WeightBits::ThirtyTwo) => {
            Ok(LanguageConversion::Exported { reason })
        }
        (Err(Declined::Reason(reason)), _) => Err(ConvertError::LanguageWeights {
            path: export.decoder.clone(),
            bits: bits.bits(),
            reason,
        }),
    }
}

enum Declined {
    Reason(String),
    Io(std::io::Error),
}

impl From<String> for Declined {
    fn from(reason: String) -> Self {
        Declined::Reason(reason)
    }
}

impl From<std::io::Error> for Declined {
    fn from(source: std::io::Error) -> Self {
        Declined::Io(source)
    }
}

/// Gives the largest difference of logits from the export's, over the largest logit, in float32.
fn written(export: &Export, config: &Value, bits: WeightBits, to: &Path) -> Result<f64, Declined> {
    let text = config.get("text_config").unwrap_or(config);
    let trial = to.with_extension("trial");
    std::fs::create_dir_all(&trial)?;
    let checked = (|| {
        let path = trial.join(DECODER_FILE);
        write(export, text, WeightBits::ThirtyTwo, &path)?;
        let open = LanguageModel::open_export(export, CONTEXT, None);
        let expected = logits(open.map_err(|e| e.to_string())?)?;
        let open = LanguageModel::open(&trial, CONTEXT, None);
        let found = logits(open.map_err(|e| e.to_string())?)?;
        let apart = expected.iter().zip(&found).map(|(a, b)| relative(a, b));
        let difference = apart.fold(0.0, f64::max);
        if difference > AGREEMENT {
            return Err(
                format!("read as a Llama decoder its logits are {difference:.1e} off").into()
            );
        }
        match bits {
            WeightBits::ThirtyTwo => std::fs::rename(&path, to)?,
            _ => write(export, text, bits, to)?,
        }
        Ok(difference)
    })();
    std::fs::remove_dir_all(&trial)?;
    checked
}

fn write(export: &Export, text: &Value, bits: WeightBits, to: &Path) -> Result<(), Declined> {
    let open = |path: &Path| load(path).map_err(|e| e.to_string());
    let (embed, decoder) = (open(&export.embed)?, open(&export.decoder)?);
    read_layers(&embed, &decoder, text)?.write(to, bits)
}

/// Logits behind each piece of the same tokens.
fn logits(model: LanguageModel) -> Result<Vec<Vec<f32>>, String> {
    let mut session = Session::new(Arc::new(model));
    let mut from = 0u32;
    let feed = |count: &u32| {
        let tokens: Vec<u32> = (from..from + count).collect();
        from += count;
        let embeddings = session.model().embed(&tokens).map_err(|e| e.to_string())?;
        session.feed(&embeddings).map_err(|e| e.to_string())
    };
    FED.iter().map(feed).collect()
}

/// The largest difference over the largest value.
fn relative(expected: &[f32], found: &[f32]) -> f64 {
    if expected.len() != found.len() {
        return f64::INFINITY;
    }
    let most = expected.iter().fold(f32::MIN_POSITIVE, |most, v| most.max(v.abs()));
    let apart = expected.iter().zip(found).map(|(a, b)| (a - b).abs());
    f64::from(apart.fold(0.0, f32::max) / most)
}

/// A number of the configuration.
fn number(text: &Value, name: &str) -> Option<usize> {
    text.get(name)?.as_u64().map(|n| n as usize)
}

/// The constants that no graph declares.
fn constants_of(text: &Value) -> Result<(f32, f32), String> {
    let rope = text.get("rope_parameters").or_else(|| text.get("rope_scaling"));
    let kind = rope.and_then(|r| r.get("rope_type").or_else(|| r.get("type")));
    if let Some(kind) = kind.and_then(Value::as_str).filter(|&kind| kind != "default") {
        return Err(format!("its rotary positions are of the kind {kind:?}"));
    }
    let theta = text.get("rope_theta").or_else(|| rope.and_then(|r| r.get("rope_theta")));
    let float = |value: Option<&Value>| value.and_then(Value::as_f64).map(|v| v as f32);
    let theta = float(theta).ok_or("config.json does not give rope_theta")?;
    let epsilon =
        float(text.get("rms_norm_eps")).ok_or("config.json does not give rms_norm_eps")?;
    Ok((theta, epsilon))
}

/// The weights' sizes, unless the configuration gives others.
fn shape_of(text: &Value, sizes: DecoderShape) -> Result<DecoderShape, String> {
    for (name, found) in [("hidden_size", sizes.width), ("intermediate_size", sizes.inner)] {
        if let Some(said) = number(text, name).filter(|&said| said != found) {
            return Err(format!("config.json says {name} {said}, the weights have {found}"));
        }
    }
    Ok(sizes)
}
