//! Parameters as people and other programs read them: the text that AUTOMATIC1111's web UI puts into its pictures.

use super::Parameters;

impl Parameters {
    /// The prompt, the negative prompt, and a last line of `Name: value` pairs, as AUTOMATIC1111's web UI writes them: values with a comma, a colon or a line
    /// break are quoted as JSON strings. Control characters but line breaks become spaces.
    pub fn readable(&self) -> String {
        let mut text = self.prompt.clone();
        if let Some(negative) = &self.negative_prompt {
            text += &format!("\nNegative prompt: {negative}");
        }
        let size = format!("{}x{}", self.width, self.height);
        let strength = self.strength.map(|strength| strength.to_string());
        let pairs = [
            ("Steps", Some(self.steps.to_string())),
            ("Sampler", Some(self.sampler.clone())),
            ("CFG scale", Some(self.guidance.to_string())),
            ("Seed", Some(self.seed.to_string())),
            ("Size", Some(size)),
            ("Model", Some(self.model.clone())),
            ("Denoising strength", strength),
            ("Version", Some(format!("rockshard {}", self.version))),
        ];
        let pair = |(name, value): (&str, Option<String>)| {
            value.map(|value| format!("{name}: {}", quoted(&value)))
        };
        let pairs: Vec<String> = pairs.into_iter().filter_map(pair).collect();
        text = format!("{text}\n{}", pairs.join(", "));
        text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
    }
}

fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Parameters {
        Parameters {
            prompt: "a ring\non black".into(),
            negative_prompt: None,
            steps: 4,
            sampler: "LCM".into(),
            guidance: 2.0,
            seed: 7,
            width: 64,
            height: 48,
            model: "tiny: a, b".into(),
            strength: Some(0.5),
            version: "0.1.0".into(),
        }
    }

    #[test]
    fn the_last_line_has_the_values_and_quotes_what_would_end_them() {
        let expected = "a ring\non black\nSteps: 4, Sampler: LCM, CFG scale: 2, Seed: 7, Size: 64x48, Model: \"tiny: a, b\", Denoising strength: 0.5, Version: rockshard 0.1.0";
        assert_eq!(parameters().readable(), expected);
        let negative = Parameters { negative_prompt: Some("people".into()), ..parameters() };
        assert!(
            negative.readable().starts_with("a ring\non black\nNegative prompt: people\nSteps")
        );
    }
}
