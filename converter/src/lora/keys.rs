//! The spellings of LoRA keys, and where a file says how its updates are scaled.

use super::LoraError;
use serde_json::Value as Json;

/// What a tensor of an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Half {
    /// Input to rank.
    Down,
    /// Rank to output.
    Up,
    /// Scale, times rank.
    Alpha,
}

/// Endings of keys: kohya, PEFT, diffusers and old diffusers.
const ENDINGS: [(&str, Half); 13] = [
    (".lora_down.weight", Half::Down),
    (".lora_up.weight", Half::Up),
    (".alpha", Half::Alpha),
    (".lora_A.weight", Half::Down),
    (".lora_B.weight", Half::Up),
    (".lora_A.default.weight", Half::Down),
    (".lora_B.default.weight", Half::Up),
    (".lora.down.weight", Half::Down),
    (".lora.up.weight", Half::Up),
    ("_lora.down.weight", Half::Down),
    ("_lora.up.weight", Half::Up),
    (".lora_linear_layer.down.weight", Half::Down),
    (".lora_linear_layer.up.weight", Half::Up),
];

/// Beginnings of keys, and the part that they are for.
const BEGINNINGS: [(&str, Option<&str>); 8] = [
    ("lora_unet_", Some(UNET)),
    ("lora_te1_", Some(TEXT)),
    ("lora_te_", Some(TEXT)),
    ("unet.", Some(UNET)),
    ("text_encoder.", Some(TEXT)),
    ("base_model.model.unet.", Some(UNET)),
    ("base_model.model.text_encoder.", Some(TEXT)),
    ("base_model.model.", None),
];
const UNET: &str = "unet";
const TEXT: &str = "text_encoder";

/// Module and half that a key names.
pub(super) fn split_key(key: &str) -> Result<(String, Half), LoraError> {
    let ending = ENDINGS
        .iter()
        .find_map(|(ending, half)| Some((key.strip_suffix(ending)?.to_owned(), *half)));
    ending.ok_or_else(|| LoraError::Key(key.to_owned()))
}

/// The part a module is for, where its spelling says so, and its path in the common spelling.
pub(super) fn part_and_module(spelling: &str) -> (Option<&'static str>, String) {
    let found = BEGINNINGS
        .iter()
        .find_map(|(beginning, part)| Some((*part, spelling.strip_prefix(beginning)?)));
    let (part, rest) = found.unwrap_or((None, spelling));
    (part, module(&rest.replace(".processor.", ".")))
}

/// A module path in the common spelling: components joined by `_`, without the names that wrap a whole model.
pub(super) fn module(path: &str) -> String {
    let joined = path.trim_matches('/').replace(['.', '/'], "_");
    let mut rest = joined.as_str();
    while let Some(inner) =
        ["model_", "unet_", "text_model_"].iter().find_map(|wrap| rest.strip_prefix(wrap))
    {
        rest = inner;
    }
    rest.to_owned()
}

/// How updates without an alpha of their own are scaled: PEFT's `adapter_config.json` beside the file, or the same in the file's
/// metadata as diffusers writes it (with the part before each name).
#[derive(Debug, Default)]
pub(super) struct Alphas {
    config: serde_json::Map<String, Json>,
}

impl Alphas {
    /// Read a configuration, where there is one.
    pub fn read(text: Option<Vec<u8>>) -> Result<Self, LoraError> {
        let Some(text) = text else { return Ok(Alphas::default()) };
        let Ok(Json::Object(config)) = serde_json::from_slice(&text) else {
            return Err(LoraError::Configuration("no JSON object".to_owned()));
        };
        for (name, value) in &config {
            let last = name.rsplit('.').next().unwrap_or(name);
            let pattern = matches!(last, "alpha_pattern" | "rank_pattern")
                && value.as_object().is_some_and(|o| !o.is_empty());
            let dora = last == "use_dora" && value.as_bool() == Some(true);
            if pattern || dora {
                return Err(LoraError::Configuration(name.clone()));
            }
        }
        Ok(Alphas { config })
    }

    /// Alpha over rank (over its root with `use_rslora`); 1 where nothing is said.
    pub fn factor(&self, part: Option<&str>, rank: usize) -> f32 {
        let get = |name: &str| {
            part.and_then(|p| self.config.get(&format!("{p}.{name}")))
                .or_else(|| self.config.get(name))
        };
        let Some(alpha) = get("lora_alpha").and_then(Json::as_f64) else { return 1.0 };
        let rooted = get("use_rslora").and_then(Json::as_bool) == Some(true);
        let rank = rank as f32;
        alpha as f32 / if rooted { rank.sqrt() } else { rank }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &str = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0";

    #[test]
    fn every_spelling_names_the_same_module() {
        let dotted = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0";
        let spellings = [
            (format!("lora_unet_{MODULE}.lora_down.weight"), Some(UNET), Half::Down),
            (format!("lora_unet_{MODULE}.alpha"), Some(UNET), Half::Alpha),
            (format!("unet.{dotted}.lora_A.weight"), Some(UNET), Half::Down),
            (format!("base_model.model.{dotted}.lora_B.weight"), None, Half::Up),
            (format!("unet.{dotted}.lora.up.weight"), Some(UNET), Half::Up),
        ];
        for (key, part, half) in spellings {
            let (spelling, found) = split_key(&key).unwrap();
            assert_eq!(
                (part_and_module(&spelling), found),
                ((part, MODULE.to_owned()), half),
                "{key}"
            );
        }
        let old = split_key("unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_q_lora.down.weight").unwrap();
        assert_eq!(
            part_and_module(&old.0).1,
            "mid_block_attentions_0_transformer_blocks_0_attn2_to_q"
        );
        let text = part_and_module("lora_te_text_model_encoder_layers_0_self_attn_q_proj");
        assert_eq!(text, (Some(TEXT), "encoder_layers_0_self_attn_q_proj".to_owned()));
        assert!(matches!(split_key("lora_unet_x.hada_w1_a"), Err(LoraError::Key(_))));
    }

    #[test]
    fn both_exporters_node_names_give_the_module() {
        for path in [
            "/model/down_blocks.0/attentions.0/transformer_blocks.0/attn1/to_out.0",
            "/down_blocks.0/attentions.0/transformer_blocks.0/attn1/to_out.0",
            "/model/down_blocks/0/attentions/0/transformer_blocks/0/attn1/to_out/0",
        ] {
            assert_eq!(module(path), MODULE, "{path}");
        }
    }
}
