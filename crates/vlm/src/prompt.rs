//! From a conversation to token ids: the model's own chat template, places for images, and its tokenizer.

use crate::Views;
use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// The word that stands for an image in a template's text, and for one place of its views in a prompt.
const IMAGE: &str = "<image>";
/// The tokenizer's file.
const TOKENIZER: &str = "tokenizer.json";
/// Files that may hold a chat template, the first that is there wins: as text, or as JSON under this key.
const TEMPLATES: [(&str, Option<&str>); 3] = [
    ("chat_template.jinja", None),
    ("chat_template.json", Some("chat_template")),
    ("tokenizer_config.json", Some("chat_template")),
];

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// Instructions.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// A piece of what is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Part {
    /// Words.
    Text {
        /// The words.
        text: String,
    },
    /// An image; its views are given beside the conversation, in the images' order.
    Image,
}

/// What one speaker says at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who says it.
    pub role: Speaker,
    /// What.
    pub content: Vec<Part>,
}

/// A conversation as a language model takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// For each view of each image, the places in `ids` that its features take.
    pub views: Vec<Range<usize>>,
}

/// Makes prompts for one model.
pub struct Prompter {
    environment: Environment<'static>,
    tokenizer: Tokenizer,
    specials: Vec<String>,
    image: u32,
    places: usize,
}

/// A conversation that cannot be made a prompt, or a model's files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// A file is missing or cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The tokenizer cannot be used.
    #[error("{path}: {problem}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Cause.
        problem: String,
    },
    /// No file has a chat template.
    #[error("{}: none of {} has a chat template", .0.display(), TEMPLATES.map(|(f, _)| f).join(", "))]
    NoTemplate(PathBuf),
    /// The template is not one, or fails on the conversation.
    #[error("the model's chat template: {0}")]
    Template(String),
    /// Somebody typed one of the model's control tokens.
    #[error("{0:?} is a control token of the model: leave it out of the text")]
    ControlToken(String),
    /// Another number of images than places for them.
    #[error("{places} places for images in the conversation, but {images} images")]
    Images {
        /// Places.
        places: usize,
        /// Images.
        images: usize,
    },
    /// Nothing is said.
    #[error("an empty message: it needs text or an image")]
    Empty,
}

impl Message {
    /// Words alone.
    pub fn text(role: Speaker, text: impl Into<String>) -> Self {
        Message { role, content: vec![Part::Text { text: text.into() }] }
    }

    /// So many images and a question about them.
    pub fn about(images: usize, text: impl Into<String>) -> Self {
        let mut content = vec![Part::Image; images];
        content.push(Part::Text { text: text.into() });
        Message { role: Speaker::User, content }
    }
}

impl Prompter {
    /// Read the tokenizer and the chat template in a model's folders. `places` is how many features the model has for a view (64 for SmolVLM).
    ///
    /// # Errors
    /// Files that are missing or cannot be used, or a tokenizer without the token `<image>`.
    pub fn open(folders: &[&Path], places: usize) -> Result<Self, PromptError> {
        let first = folders.first().copied().unwrap_or(Path::new("."));
        let there = folders.iter().map(|f| f.join(TOKENIZER)).find(|path| path.is_file());
        let path = there.unwrap_or_else(|| first.join(TOKENIZER));
        let bytes = std::fs::read(&path);
        let bytes = bytes.map_err(|source| PromptError::Read { path: path.clone(), source })?;
        let unusable = |problem: String| PromptError::Tokenizer { path: path.clone(), problem };
        let tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| unusable(e.to_string()))?;
        let image = tokenizer.token_to_id(IMAGE);
        let image = image.ok_or_else(|| unusable(format!("it has no token {IMAGE:?}")))?;
        let added = tokenizer.get_added_tokens_decoder();
        let specials = added.into_values().filter(|t| t.special).map(|t| t.content).collect();
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |said: String| -> Result<(), minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, said))
            },
        );
        environment
            .add_template_owned("chat", template(folders)?)
            .map_err(|e| PromptError::Template(e.to_string()))?;
        Ok(Prompter { environment, tokenizer, specials, image, places })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// A conversation with its images' views, up to where the model goes on.
    ///
    /// # Errors
    /// Empty messages, control tokens in text, another number of images than places for them, or a template that fails on it.
    pub fn prompt(&self, messages: &[Message], images: &[&Views]) -> Result<Prompt, PromptError> {
        messages.iter().try_for_each(|m| self.check(m))?;
        let parts = || messages.iter().flat_map(|m| &m.content);
        let places = parts().filter(|p| **p == Part::Image).count();
        if places != images.len() {
            return Err(PromptError::Images { places, images: images.len() });
        }
        let failed = |e: minijinja::Error| PromptError::Template(e.to_string());
        let template = self.environment.get_template("chat").map_err(failed)?;
        let special = |id: &str| self.tokenizer.token_to_id(id).map(|_| id.to_owned());
        let context = context! {
            messages => messages, add_generation_prompt => true,
            bos_token => special("<|im_start|>"), eos_token => special("<end_of_utterance>"),
        };
        let rendered = template.render(context).map_err(failed)?;
        let pieces: Vec<&str> = rendered.split(IMAGE).collect();
        if pieces.len() != images.len() + 1 {
            let said = format!("it left {} places for {} images", pieces.len() - 1, images.len());
            return Err(PromptError::Template(said));
        }
        let mut text = String::new();
        for (at, piece) in pieces.into_iter().enumerate() {
            text += piece;
            if let Some(views) = images.get(at) {
                text += &views.placeholder(self.places);
            }
        }
        let encoding = self.tokenizer.encode(text.as_str(), true);
        let encoding = encoding.map_err(|e| PromptError::Template(e.to_string()))?;
        let ids = encoding.get_ids().to_vec();
        let views = self.views(&ids);
        let expected: usize = images.iter().map(|v| v.count()).sum();
        if views.len() != expected || views.iter().any(|v| v.len() != self.places) {
            let said =
                format!("{} of {expected} views have their {} places", views.len(), self.places);
            return Err(PromptError::Template(said));
        }
        Ok(Prompt { text, ids, views })
    }

    fn check(&self, message: &Message) -> Result<(), PromptError> {
        if message.content.is_empty() {
            return Err(PromptError::Empty);
        }
        for part in &message.content {
            let Part::Text { text } = part else { continue };
            if let Some(token) = self.specials.iter().find(|t| text.contains(t.as_str())) {
                return Err(PromptError::ControlToken(token.clone()));
            }
        }
        Ok(())
    }

    /// Runs of image tokens.
    fn views(&self, ids: &[u32]) -> Vec<Range<usize>> {
        let mut views: Vec<Range<usize>> = Vec::new();
        for (at, _) in ids.iter().enumerate().filter(|(_, id)| **id == self.image) {
            match views.last_mut() {
                Some(last) if last.end == at => last.end += 1,
                _ => views.push(at..at + 1),
            }
        }
        views
    }
}

/// The chat template in folders.
fn template(folders: &[&Path]) -> Result<String, PromptError> {
    for (file, key) in TEMPLATES {
        for path in folders.iter().map(|folder| folder.join(file)).filter(|path| path.is_file()) {
            let text = std::fs::read_to_string(&path);
            let text = text.map_err(|source| PromptError::Read { path: path.clone(), source })?;
            let Some(key) = key else { return Ok(text) };
            let json: serde_json::Value = serde_json::from_str(&text)
                .map_err(|e| PromptError::Template(format!("{}: {e}", path.display())))?;
            if let Some(found) = json.get(key).and_then(serde_json::Value::as_str) {
                return Ok(found.to_owned());
            }
        }
    }
    Err(PromptError::NoTemplate(folders.first().map_or_else(PathBuf::new, |f| f.to_path_buf())))
}
