//! What a prompt may not have, and how its mistakes are told.

use super::LARGEST_WEIGHT;

/// Why a prompt is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PromptSyntaxError {
    /// A LoRA named in the prompt, as web UIs have it.
    #[error(
        "the prompt has {found:?}: a LoRA is fused into a model's weights when it is converted, a prompt cannot add one"
    )]
    Lora {
        /// As it is written.
        found: String,
        /// The LoRA's name, without the ending of a file.
        name: String,
        /// How much of it, where that is said.
        scale: Option<String>,
    },
    /// Syntax of other programs that is not supported.
    #[error("the prompt has {found:?}: {what} is not supported; {instead}")]
    Unsupported {
        /// As it is written.
        found: String,
        /// What it is called.
        what: &'static str,
        /// What can be written in its place.
        instead: &'static str,
    },
    /// A weight that is no number.
    #[error("the prompt has the weight {found:?}, which is not a number; write it like 1.3")]
    Number {
        /// As it is written.
        found: String,
    },
    /// A weight that is too large.
    #[error(
        "the prompt gives {text:?} the weight {weight}; at most {LARGEST_WEIGHT} is possible, and more than 2 seldom helps (a bracket that is meant as one is written \\( or \\))"
    )]
    Large {
        /// What it is for.
        text: String,
        /// The weight with those of the brackets around it.
        weight: f64,
    },
}

/// Kinds of extra networks that web UIs load for a prompt (`<kind:name:scale>`).
const LORAS: [&str; 3] = ["lora", "lyco", "locon"];
const HYPERNETWORK: &str = "hypernet";

/// Compel's functions of prompts.
const FUNCTIONS: [&str; 4] = [").and(", ").blend(", ".swap(", ".withLora("];

/// Words in capitals that web UIs do something with.
const BREAK: (&str, &str, &str) = (
    "BREAK",
    "starting a new chunk of tokens",
    "leave it out, or write it in small letters where the word is meant",
);
const AND: (&str, &str, &str) = (
    "AND",
    "composing a picture of several prompts",
    "write it in small letters where the word is meant",
);

/// Refuse what is no matter of brackets.
pub(super) fn refuse_foreign(prompt: &str) -> Result<(), PromptSyntaxError> {
    prompt.split('<').skip(1).try_for_each(refuse_network)?;
    let Some(found) = FUNCTIONS.into_iter().find(|function| prompt.contains(function)) else {
        return Ok(());
    };
    Err(PromptSyntaxError::Unsupported {
        found: found.trim_start_matches(')').to_owned(),
        what: "a function of prompts",
        instead: "write one prompt, with weights for its words",
    })
}

/// Refuse an extra network in what follows a `<`.
fn refuse_network(text: &str) -> Result<(), PromptSyntaxError> {
    let Some((inner, _)) = text.split_once('>') else { return Ok(()) };
    let mut parts = inner.split(':').map(str::trim);
    let (Some(kind), Some(name)) = (parts.next(), parts.next()) else { return Ok(()) };
    let found = format!("<{inner}>");
    if LORAS.contains(&kind) {
        let scale = parts.next().filter(|scale| scale.parse::<f32>().is_ok());
        let (name, scale) = (name.to_owned(), scale.map(str::to_owned));
        return Err(PromptSyntaxError::Lora { found, name, scale });
    }
    if kind == HYPERNETWORK {
        let (what, instead) = ("a hypernetwork", "leave it out");
        return Err(PromptSyntaxError::Unsupported { found, what, instead });
    }
    Ok(())
}

/// Refuse words that web UIs do something with, in text without brackets.
pub(super) fn refuse_keywords(text: &str) -> Result<(), PromptSyntaxError> {
    let words = || text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    let keyword = [BREAK, AND].into_iter().find(|(keyword, ..)| words().any(|w| w == *keyword));
    let Some((keyword, what, instead)) = keyword else { return Ok(()) };
    Err(PromptSyntaxError::Unsupported { found: keyword.to_owned(), what, instead })
}

/// Prompt editing: `[from:to:when]`, `[to:when]`, `[from::when]`.
pub(super) fn scheduling(found: String) -> PromptSyntaxError {
    PromptSyntaxError::Unsupported {
        found,
        what: "changing the prompt between steps",
        instead: "keep one of its texts; a weight is written (text:0.8), in round brackets",
    }
}

/// Alternating words: `[a|b]`.
pub(super) fn alternating(found: String) -> PromptSyntaxError {
    PromptSyntaxError::Unsupported {
        found,
        what: "alternating words between steps",
        instead: "keep one of them; a | that is meant as one is written \\|",
    }
}
