//! The bundled captioner looks at what was drawn.

use super::scene::Scene;
use crate::commands::convert;
use crate::output::Output;
use crate::{devices, interrupt};
use anyhow::{Context, Result};
use rockshard::{
    Captioner, CaptionerOptions, ConvertRequest, DeviceName, Devices, Pack, Picture, Rgb, Sampling,
};
use std::ops::ControlFlow;
use std::path::Path;

const QUESTION: &str = "Describe this image.";
const MOST_TOKENS: usize = 32;

/// What a picture shows, in words.
pub struct Description {
    /// The words.
    pub text: String,
    /// Whether they have what the prompt asked for; `None` where the prompt asks for nothing that the captioner has words for.
    pub agrees: Option<bool>,
}

impl Description {
    /// Whether it agrees, in words.
    pub fn verdict(&self) -> &'static str {
        match self.agrees {
            Some(true) => "agrees with the prompt",
            Some(false) => "DISAGREES with the prompt",
            None => "the prompt asks for nothing that it has words for",
        }
    }
}

/// Convert the captioner and have it describe a picture.
pub fn describe(
    picture: &Picture,
    prompt: &str,
    request: ConvertRequest,
    (devices, name, cores): (&Devices, DeviceName, u8),
    out: &Output,
) -> Result<Description> {
    let pack = request.out.clone();
    convert::convert(request, "", out)?;
    let pack = Pack::open(&pack)?;
    let cores = rockshard::take_cores_with(devices, devices::usual(name, cores)?)?;
    let captioner = Captioner::load(&cores, &pack, &CaptionerOptions::default())?;
    let mut conversation = captioner.conversation(Sampling::default(), interrupt::run_options())?;
    let (width, height) = (picture.width as usize, picture.height as usize);
    let image = Rgb::new(width, height, picture.rgb.clone())?;
    let mut heard = |_: &str| ControlFlow::Continue(());
    let answer = conversation.ask(QUESTION, &[image], MOST_TOKENS, &mut heard)?;
    let text = answer.text.trim().to_owned();
    let agrees = Scene::read(&text).has(&Scene::read(prompt));
    Ok(Description { text, agrees })
}

/// Take away what an earlier demo left.
pub fn clear(pack: &Path) -> Result<()> {
    if pack.join(rockshard_manifest::MANIFEST_FILE).is_file() {
        std::fs::remove_dir_all(pack).with_context(|| pack.display().to_string())?;
    }
    Ok(())
}
