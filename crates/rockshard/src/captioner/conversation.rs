//! A conversation about images.

use super::Captioner;
use super::seeing::Seeing;
use crate::Error;
use rockshard_runtime::{RunOptions, Trace};
use rockshard_vlm::{
    End, Generation, LanguageError, Message, Prompt, Rgb, Sampler, Sampling, Session, Speaker,
    Views, generate,
};
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::Instant;

/// What was said, and what is kept of it: the images' features, and the language model's keys and values.
pub struct Conversation<'a> {
    captioner: &'a Captioner,
    options: RunOptions,
    messages: Vec<Message>,
    views: Vec<Views>,
    /// Views of what was recalled, which the next question looks at.
    unseen: Vec<Views>,
    /// Features of all views so far.
    features: Vec<Vec<f32>>,
    session: Session,
    /// The tokens that the session has been fed.
    fed: Vec<u32>,
    sampler: Sampler,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was said.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub end: End,
    /// What it took.
    pub times: Times,
    /// What ran on the cores.
    pub trace: Trace,
}

/// What an answer took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Times {
    /// Views that were looked at.
    pub views: usize,
    /// Tokens of the whole conversation before the answer.
    pub prompt_tokens: usize,
    /// Tokens of these that were fed for this answer; the others were known.
    pub fed_tokens: usize,
    /// Measured microseconds that images took on the host: resampling, cutting.
    pub measured_images_us: f64,
    /// Measured microseconds until the last token of the prompt was fed, the vision encoder's time beside it included.
    pub measured_prefill_us: f64,
    /// Measured microseconds of the answer's tokens.
    pub measured_decode_us: f64,
    /// Modelled microseconds of the vision encoder on the cores; absent where the device models nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modelled_vision_us: Option<f64>,
}

impl Captioner {
    /// Begin a conversation whose words are chosen in this way. `options` are those of its runs on the cores.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub fn conversation(
        &self,
        sampling: Sampling,
        options: RunOptions,
    ) -> Result<Conversation<'_>, Error> {
        Ok(Conversation {
            captioner: self,
            options,
            messages: Vec::new(),
            views: Vec::new(),
            unseen: Vec::new(),
            features: Vec::new(),
            session: Session::new(self.language.clone()),
            fed: Vec::new(),
            sampler: Sampler::new(sampling)?,
        })
    }
}

impl Conversation<'_> {
    /// Take in what was said elsewhere before: a message with its images. It costs time with the next question.
    pub fn recall(&mut self, speaker: Speaker, text: &str, images: &[Rgb]) {
        self.unseen.extend(images.iter().map(|i| self.captioner.processor.views(i)));
        let message = match speaker {
            Speaker::User => Message::about(images.len(), text),
            Speaker::System | Speaker::Assistant => Message::text(speaker, text),
        };
        self.messages.push(message);
    }

    /// Ask something about new images and all those before; `tell` is given words as they come. Only what is new costs time. Where it fails, the conversation is
    /// as it was.
    ///
    /// # Errors
    /// Control tokens in the question, more tokens than the language model has positions for, or a network that fails.
    pub fn ask(
        &mut self,
        question: &str,
        images: &[Rgb],
        most: usize,
        tell: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer, Error> {
        let (messages, views) = (self.messages.len(), self.views.len());
        let seen = self.features.len();
        let unseen = self.unseen.clone();
        let answered = self.answer(question, images, most, tell);
        if answered.is_err() {
            self.messages.truncate(messages);
            self.views.truncate(views);
            self.unseen = unseen;
            self.features.truncate(seen);
            let kept = self.fed.len().min(self.session.tokens());
            self.forget(kept);
        }
        answered
    }

    fn answer(
        &mut self,
        question: &str,
        images: &[Rgb],
        most: usize,
        tell: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer, Error> {
        let captioner = self.captioner;
        let start = Instant::now();
        let mut new: Vec<Views> = std::mem::take(&mut self.unseen);
        new.extend(images.iter().map(|i| captioner.processor.views(i)));
        let measured_images_us = micros(start);
        self.messages.push(Message::about(images.len(), question));
        self.views.extend(new.iter().cloned());
        let all: Vec<&Views> = self.views.iter().collect();
        let prompt = captioner.prompter.prompt(&self.messages, &all)?;
        let (asked, context) = (prompt.ids.len() + 1, captioner.language.context());
        if asked > context {
            return Err(LanguageError::Context { asked, context }.into());
        }
        let start = Instant::now();
        let seeing = Seeing::start(captioner, &new, &self.options)?;
        self.views.iter_mut().for_each(Views::forget_pixels);
        let (logits, known, trace) = self.feed(&prompt, seeing)?;
        let times = Times {
            views: new.iter().map(Views::count).sum(),
            prompt_tokens: prompt.ids.len(),
            fed_tokens: prompt.ids.len() - known,
            measured_images_us,
            measured_prefill_us: micros(start),
            modelled_vision_us: trace.is_modelled().then(|| trace.modelled_total_us()),
            ..Times::default()
        };
        let start = Instant::now();
        let (text, said) = self.say(&prompt, logits, most, tell)?;
        let times = Times { measured_decode_us: micros(start), ..times };
        self.messages.push(Message::text(Speaker::Assistant, text.clone()));
        Ok(Answer { text, tokens: said.tokens, end: said.end, times, trace })
    }

    /// Feed what the session does not know yet; gives the logits behind it, and how many tokens were known.
    fn feed(
        &mut self,
        prompt: &Prompt,
        mut seeing: Seeing,
    ) -> Result<(Vec<f32>, usize, Trace), Error> {
        let same = self.fed.iter().zip(&prompt.ids).take_while(|(a, b)| a == b).count();
        // The last token is fed anew for its logits.
        let known = same.min(prompt.ids.len() - 1);
        self.forget(known);
        let language = self.captioner.language.clone();
        let before = self.features.len();
        let mut waiting: Vec<f32> = Vec::new();
        let mut at = known;
        for (number, view) in prompt.views.iter().enumerate().filter(|(_, v)| v.end > known) {
            if at < view.start {
                waiting.extend(language.embed(&prompt.ids[at..view.start])?);
                at = view.start;
            }
            if let Some(new) = number.checked_sub(before) {
                if seeing.ready(new).is_none() && !waiting.is_empty() {
                    // Words are fed while the view is on the cores.
                    self.session.feed(&std::mem::take(&mut waiting))?;
                }
                let features = seeing.wait(new)?.to_vec();
                self.features.push(features);
            }
            let done = (at - view.start) * language.width();
            waiting.extend(&self.features[number][done..]);
            at = view.end;
        }
        waiting.extend(language.embed(&prompt.ids[at..])?);
        let logits = self.session.feed(&waiting)?;
        self.fed = prompt.ids.clone();
        Ok((logits, known, seeing.finish()?))
    }

    fn forget(&mut self, tokens: usize) {
        self.session.forget(tokens);
        self.fed.truncate(tokens);
    }

    fn say(
        &mut self,
        prompt: &Prompt,
        logits: Vec<f32>,
        most: usize,
        tell: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(String, Generation), Error> {
        let tokenizer = self.captioner.prompter.tokenizer();
        let mut decoding = tokenizer.decode_stream(true);
        let (mut text, mut failed) = (String::new(), None);
        let mut word = |token: u32| match decoding.step(token) {
            Ok(Some(words)) => {
                // The template has the space before the first word.
                let words = if text.is_empty() { words.trim_start() } else { &words };
                text += words;
                tell(words)
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error.to_string());
                ControlFlow::Break(())
            }
        };
        let (ids, stops) = (&prompt.ids[..], &self.captioner.stops[..]);
        let said =
            generate(&mut self.session, logits, &mut self.sampler, (ids, stops), most, &mut word);
        if let Some(failed) = failed {
            return Err(LanguageError::Run(failed).into());
        }
        let said = said?;
        self.fed.extend(&said.tokens);
        self.fed.truncate(self.session.tokens());
        // What is left of a character that was cut off.
        let whole = tokenizer.decode(&said.tokens, true).unwrap_or_default();
        if let Some(rest) = whole.trim_start().strip_prefix(&text).filter(|rest| !rest.is_empty()) {
            let _ = tell(rest);
            text += rest;
        }
        Ok((text, said))
    }
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}
