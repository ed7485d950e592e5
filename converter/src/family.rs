//! What is being converted, by family: each module knows the files and names of one kind of model, and takes it apart into networks
//! with roles, and companion files.

mod fixed;
pub(crate) mod foreign;
mod network;
pub(crate) mod precision;
mod text_to_image;
mod vision_language;

use crate::ConvertError;
use rockshard_import::Given;
use rockshard_manifest::{Companion, Family, Role};
use rockshard_onnx::schema::{ValueInfoProto, tensor_shape_proto::dimension, type_proto};
use rockshard_vlm::Export;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One network of the source.
#[derive(Clone, Debug)]
pub struct Part {
    /// `unet`, `vae_decoder`, ..., or the file's stem.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// ONNX file.
    pub path: PathBuf,
    /// Shapes for inputs with open dimensions.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Extents of named open dimensions.
    pub dims: BTreeMap<String, usize>,
    /// What is given about inputs.
    pub given: BTreeMap<String, Given>,
    /// Outputs to keep; all when empty.
    pub outputs: Vec<String>,
    /// Picture size `[width, height]` the shapes are for.
    pub resolution: Option<[u32; 2]>,
    /// Which nodes of the file are the part's.
    pub piece: Piece,
}

/// What of a file a part is, where a U-Net's keys and values are a network of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Piece {
    /// All of it.
    #[default]
    Whole,
    /// What makes keys and values of the prompt's hidden states.
    KeysValues,
    /// The rest, which takes them as inputs.
    Rest,
}

/// A file of the source that the pack takes along unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompanionFile {
    /// What it is for.
    pub companion: Companion,
    /// Its path in the pack.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// A language model that goes along, which is converted by itself.
#[derive(Clone, Debug)]
pub struct Language {
    /// Its files.
    pub export: Export,
    /// The model's configuration.
    pub config: Json,
}

/// A source, taken apart.
#[derive(Clone, Debug)]
pub struct Source {
    /// What its networks make together.
    pub family: Family,
    /// Networks in the order they run.
    pub parts: Vec<Part>,
    /// Files to take along.
    pub companions: Vec<CompanionFile>,
    /// The language model, where there is one.
    pub language: Option<Language>,
    /// Networks that are there and not converted.
    pub unused: Vec<String>,
}

impl Part {
    /// What the model's author calls it: the part that its file is of.
    pub fn in_source(&self) -> &str {
        if self.piece == Piece::KeysValues { Role::Unet.word() } else { &self.name }
    }
}

const SMALLEST: u32 = 64;
const LARGEST: u32 = 2048;

impl Source {
    /// Make the keys and values of the U-Net's cross-attentions a network of their own, which runs once a prompt.
    ///
    /// # Errors
    /// There is no U-Net in a directory.
    pub fn precompute_keys_values(&mut self, path: &Path) -> Result<(), ConvertError> {
        let Some(at) = self.parts.iter().position(|p| p.role == Role::Unet) else {
            let problem = "has no unet/, whose keys and values could be precomputed".into();
            return Err(refused(path, problem));
        };
        for part in self.parts.iter_mut().filter(|p| p.role == Role::Unet) {
            part.piece = Piece::Rest;
        }
        let keys_values = Part {
            name: Role::KeysValues.word().to_owned(),
            role: Role::KeysValues,
            resolution: None,
            piece: Piece::KeysValues,
            ..self.parts[at].clone()
        };
        self.parts.insert(at, keys_values);
        Ok(())
    }

    /// Look at a path and find its parts at the given resolutions (the model's own when none is given), for `batch` items at once.
    ///
    /// # Errors
    /// Nothing convertible there, a part missing, a resolution that the model cannot have, or a batch that the files do not leave open.
    pub fn open(path: &Path, resolutions: &[[u32; 2]], batch: usize) -> Result<Self, ConvertError> {
        resolutions.iter().try_for_each(|&resolution| check_sides(path, resolution))?;
        if path.is_file() {
            let foreign = foreign::file(path).map(|problem| refused(path, problem));
            return foreign.map_or_else(|| network::open(path, batch), Err);
        }
        if !path.exists() {
            return Err(refused(path, "no such file or directory".into()));
        }
        if let Some(problem) = foreign::directory(path) {
            return Err(refused(path, problem));
        }
        if let Some(encoder) = vision_language::encoder(path)? {
            return vision_language::open(path, encoder, resolutions, batch);
        }
        if text_to_image::is_one(path) {
            return text_to_image::open(path, resolutions, batch);
        }
        Err(refused(
            path,
            format!(
                "is no model that is known: an .onnx file, a diffusers-style directory (with {}/), or a transformers-style one (with {})",
                text_to_image::folders().join("/, "),
                vision_language::ENCODERS.map(|file| format!("{file}.onnx")).join(", ")
            ),
        ))
    }
}

fn refused(path: &Path, problem: String) -> ConvertError {
    ConvertError::Source { path: path.to_owned(), problem }
}

/// The files of a folder, in the order of their names, as companions under `folder` in the pack.
fn folder_companions(companion: Companion, folder: &Path, name: &str) -> Vec<CompanionFile> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_file()).collect();
    paths.sort();
    let named = |path: PathBuf| {
        let file = path.file_name()?.to_str()?;
        Some(CompanionFile { companion, name: format!("{name}/{file}"), path })
    };
    paths.into_iter().filter_map(named).collect()
}

/// A configuration, where there is one.
fn read_json(path: &Path) -> Result<Option<Json>, ConvertError> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read(path).map_err(ConvertError::io(path))?;
    serde_json::from_slice(&text).map(Some).map_err(|e| refused(path, format!("is no JSON: {e}")))
}

/// Check that a picture's sides are of a size that makes sense.
fn check_sides(path: &Path, [width, height]: [u32; 2]) -> Result<(), ConvertError> {
    if [width, height].iter().all(|side| (SMALLEST..=LARGEST).contains(side)) {
        return Ok(());
    }
    let problem = format!(
        "resolution {width}x{height}: width and height must be from {SMALLEST} to {LARGEST}"
    );
    Err(refused(path, problem))
}

/// A batch that the file fixes must be the one asked for.
fn check_batch(
    path: &Path,
    input: &ValueInfoProto,
    declared: &[Option<usize>],
    batch: usize,
) -> Result<(), ConvertError> {
    match declared {
        [Some(fixed), _, ..] if *fixed != batch && declared.len() >= 2 => {
            let name = input.name.as_deref().unwrap_or_default();
            let problem = format!(
                "input {name:?} is fixed at a batch of {fixed}, asked for {batch}; export it with an open batch"
            );
            Err(refused(path, problem))
        }
        _ => Ok(()),
    }
}

pub(crate) fn declared(input: &ValueInfoProto) -> Option<Vec<Option<usize>>> {
    let type_proto::Value::TensorType(tensor) = input.r#type.as_ref()?.value.as_ref()? else {
        return None;
    };
    let fixed = |v: &Option<dimension::Value>| match v {
        Some(dimension::Value::DimValue(d)) => usize::try_from(*d).ok().filter(|&d| d > 0),
        _ => None,
    };
    Some(tensor.shape.as_ref()?.dim.iter().map(|d| fixed(&d.value)).collect())
}
