//! The words about a picture with the features of the captioner's device, beside those with the reference's.

use super::Captioner;
use super::seeing::items;
use crate::Error;
use rockshard_manifest::{Model, Role};
use rockshard_pack::{Mode, Pack};
use rockshard_runtime::{Cores, LoadedPack, RunOptions};
use rockshard_validation::{LogitsAgreement, Words};
use rockshard_vlm::{Message, Prompt, Rgb, Sampler, Session, Views};

/// What is asked.
const QUESTION: &str = "Describe this image.";
/// Most tokens of the answer.
const MOST: usize = 32;

impl Captioner {
    /// Answer about a picture with the reference's features, and with those of the device: what is said with each, and the logits of both behind the same words,
    /// the reference's.
    pub(crate) fn words(
        &self,
        reference: &Cores,
        pack: &Pack,
        picture: &Rgb,
    ) -> Result<Words, Error> {
        let views = [self.processor.views(picture)];
        let prompt = self.prompter.prompt(&[Message::about(1, QUESTION)], &[&views[0]])?;
        let loaded = reference.load(pack, Mode::Pipeline, |m| m.role == Role::VisionEncoder)?;
        let mut expected = self.prompted(&prompt, &features(&loaded, &self.vision, &views)?)?;
        let mut found = self.prompted(&prompt, &features(&self.loaded, &self.vision, &views)?)?;
        let (said, expected) = self.answered(&mut expected, None)?;
        let (_, behind) = self.answered(&mut found, Some(&said))?;
        let (own, _) = self.answered(&mut found, None)?;
        let text = |tokens: &[u32]| {
            let text = self.prompter.tokenizer().decode(tokens, true).unwrap_or_default();
            text.trim().to_owned()
        };
        Ok(Words {
            question: QUESTION.into(),
            reference: text(&said),
            device: text(&own),
            agreement: LogitsAgreement::of(&expected, &behind),
        })
    }

    /// Feed a prompt with its views' features.
    fn prompted(&self, prompt: &Prompt, features: &[Vec<f32>]) -> Result<Prompted, Error> {
        let mut embeddings = self.language.embed(&prompt.ids)?;
        let width = self.language.width();
        for (place, features) in prompt.views.iter().zip(features) {
            embeddings[place.start * width..place.end * width].copy_from_slice(features);
        }
        let mut session = Session::new(self.language.clone());
        let logits = session.feed(&embeddings)?;
        Ok(Prompted { tokens: session.tokens(), session, logits })
    }

    /// Say these words, or those that are likeliest; gives them, and the logits behind the prompt and each of them.
    fn answered(
        &self,
        prompted: &mut Prompted,
        words: Option<&[u32]>,
    ) -> Result<(Vec<u32>, Vec<Vec<f32>>), Error> {
        let session = &mut prompted.session;
        session.forget(prompted.tokens);
        let (mut said, mut logits) = (Vec::new(), vec![prompted.logits.clone()]);
        while said.len() < words.map_or(MOST, <[u32]>::len) {
            let token = match words {
                Some(words) => words[said.len()],
                None => Sampler::greedy().choose(&logits[said.len()], &[]),
            };
            if words.is_none() && self.stops.contains(&token) {
                break;
            }
            said.push(token);
            logits.push(session.feed(&self.language.embed(&[token])?)?);
        }
        Ok((said, logits))
    }
}

/// A session behind a prompt.
struct Prompted {
    session: Session,
    tokens: usize,
    logits: Vec<f32>,
}

/// What the vision encoder gives for each view.
fn features(loaded: &LoadedPack, vision: &Model, views: &[Views]) -> Result<Vec<Vec<f32>>, Error> {
    let outcome = loaded.run(&vision.name, items(vision, views), &RunOptions::default())?;
    let output = &vision.outputs[0].name;
    let values =
        |outputs: &crate::TensorMap| Some(outputs.get(output)?.to_f32().ok()?.into_owned());
    Ok(outcome.outputs?.iter().filter_map(values).collect())
}
