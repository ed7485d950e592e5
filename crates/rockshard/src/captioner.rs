//! Describing images: a pack's vision encoder on the cores, its language model on the host.
//!
//! A [`Captioner`] is loaded once; each [`Conversation`] with it keeps its images and what was said.

mod conversation;
mod seeing;
mod words;

use crate::{Error, pick_mode};
pub use conversation::{Answer, Conversation, Times};
use rockshard_manifest::{Companion, Family, Model, Role};
use rockshard_pack::{Footprint, Mode, Pack};
use rockshard_runtime::{Cores, Incident, LoadedPack};
use rockshard_vlm::{ImageProcessor, LanguageModel, Prompter};
pub use seeing::picture_inputs;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Views that mostly run together: what the planner plans for.
const TOGETHER: usize = 17;
/// What says how images are cut and normalised.
const PROCESSOR_FILE: &str = "preprocessor_config.json";
/// Positions of a language model that does not say.
const USUAL_CONTEXT: usize = 2048;

/// How a pack describes images.
#[derive(Clone, Debug, Default)]
pub struct CaptionerOptions {
    /// Most views a side of an image's grid; `None` is the model's own.
    pub grid: Option<usize>,
    /// How views go through the cores; `None` is the planner's choice.
    pub mode: Option<Mode>,
    /// Threads of the language model; `None` is one a core of the host.
    pub threads: Option<usize>,
}

/// A vision-language pack on the cores.
pub struct Captioner {
    loaded: LoadedPack,
    vision: Model,
    processor: ImageProcessor,
    prompter: Prompter,
    language: Arc<LanguageModel>,
    /// Tokens that end what is said.
    stops: Vec<u32>,
}

impl Captioner {
    /// Load a vision-language pack onto cores.
    ///
    /// # Errors
    /// A pack of another family, without a language model or one of its files, of a batch, or whose parts do not fit each other.
    pub fn load(cores: &Cores, pack: &Pack, options: &CaptionerOptions) -> Result<Self, Error> {
        let manifest = pack.manifest();
        let fail = |problem: String| Error::NotDescribing { pack: pack.root().to_owned(), problem };
        if manifest.family != Family::VisionLanguage {
            return Err(fail(format!("its family is {}", manifest.family)));
        }
        let vision = manifest.models.iter().find(|m| m.role == Role::VisionEncoder);
        let vision = vision.ok_or_else(|| fail("it has no vision encoder".into()))?.clone();
        let folder = |companion: Companion| {
            folder(pack, companion)?.ok_or_else(|| {
                fail(format!("it has no {companion}; convert a directory that has the whole model"))
            })
        };
        let language = folder(Companion::LanguageModel)?;
        let preprocessor = folder(Companion::Preprocessor)?;
        let tokenizer = folder(Companion::Tokenizer)?;
        let template = folder(Companion::ChatTemplate).unwrap_or_else(|_| tokenizer.clone());
        let config = read_json(&preprocessor.join("config.json"));
        let context = config["text_config"]["max_position_embeddings"].as_u64();
        let context = context.map_or(USUAL_CONTEXT, |c| c as usize);
        let language = LanguageModel::open(&language, context, options.threads)?;
        let places = places(&vision, language.width()).map_err(fail)?;
        let mut processor = processor(&preprocessor)?;
        if let Some(grid) = options.grid {
            processor = processor.with_grid(grid)?;
        }
        let side = processor.side();
        if let Some(own) = vision.resolution.filter(|r| *r != [side as u32; 2]) {
            let [width, height] = own;
            return Err(fail(format!(
                "its vision encoder takes {width}x{height} pixels, its preprocessor makes {side}x{side}"
            )));
        }
        let prompter = Prompter::open(&[&tokenizer, &template], places)?;
        let stops = stops(&read_json(&tokenizer.join("generation_config.json")), &prompter);
        let planned = || pick_mode(pack, cores.options(), TOGETHER);
        let mode = options.mode.unwrap_or_else(planned);
        let loaded = cores.load(pack, mode, |m| m.role == Role::VisionEncoder)?;
        let language = Arc::new(language);
        Ok(Captioner { loaded, vision, processor, prompter, language, stops })
    }

    /// The language model.
    pub(crate) fn language(&self) -> &Arc<LanguageModel> {
        &self.language
    }

    /// The modelled device memory that it takes.
    pub fn footprint(&self) -> Footprint {
        self.loaded.footprint()
    }

    /// Faults that were met while the pack was loaded, and what was done about each.
    pub fn incidents(&self) -> &[Incident] {
        self.loaded.incidents()
    }
}

/// Where a pack has the files of a companion; `None` without any.
fn folder(pack: &Pack, companion: Companion) -> Result<Option<PathBuf>, Error> {
    let files = pack.manifest().companions.get(&companion);
    let files = files.map(Vec::as_slice).unwrap_or_default();
    let paths = files.iter().map(|file| pack.file(file)).collect::<Result<Vec<_>, _>>()?;
    Ok(paths.first().and_then(|path| path.parent()).map(Path::to_owned))
}

/// What makes views of images, as a folder's configuration says.
fn processor(folder: &Path) -> Result<ImageProcessor, Error> {
    let path = folder.join(PROCESSOR_FILE);
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|source| Error::Read { path, source })?;
    Ok(ImageProcessor::from_json(&text)?)
}

/// Features of a view: what the vision encoder gives for one, over the width of the language model.
fn places(vision: &Model, width: usize) -> Result<usize, String> {
    let output = vision.outputs.first().ok_or("its vision encoder has no output")?;
    if vision.inputs.first().and_then(|t| t.shape.first()).is_some_and(|&batch| batch != 1) {
        return Err("it was converted for several views at once; one at a time is needed".into());
    }
    let values: usize = output.shape.iter().product();
    if output.shape.last() != Some(&width) {
        return Err(format!(
            "its vision encoder gives {:?}, its language model takes rows of {width}; an encoder without its connector does not fit",
            output.shape
        ));
    }
    Ok(values / width)
}

/// A JSON file; null where there is none that can be read.
fn read_json(path: &Path) -> Json {
    let text = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Tokens that end what is said: those of the configuration, and those that SmolVLM ends with.
fn stops(config: &Json, prompter: &Prompter) -> Vec<u32> {
    let number = |json: &Json| json.as_u64().map(|id| id as u32);
    let configured: Vec<u32> = match &config["eos_token_id"] {
        Json::Array(list) => list.iter().filter_map(number).collect(),
        one => number(one).into_iter().collect(),
    };
    let usual = ["<end_of_utterance>", "<|im_end|>", "<|endoftext|>"];
    let known = usual.iter().filter_map(|token| prompter.tokenizer().token_to_id(token));
    let mut stops: Vec<u32> = configured.into_iter().chain(known).collect();
    stops.sort_unstable();
    stops.dedup();
    stops
}
