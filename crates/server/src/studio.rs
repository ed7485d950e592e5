//! Doing work on the cores of this process.

use crate::activity::Activity;
use crate::packs::Packs;
use crate::queue::Job;
use crate::stopping::Stopping;
use crate::work::{
    Describe, Draw, EncodedPicture, Failure, FailureKind, Output, PictureFormat, Terms, Times, Work,
};
use rockshard::{
    Cancel, Client, DrawProgress, DrawingError, End, Error, Picture, PictureError, Rgb, RunOptions,
    RuntimeError, Trace,
};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Most clients that are told apart at a time.
const MOST_CLIENTS: usize = 4096;

/// What came of a part of a job.
pub enum Done {
    /// All of it.
    Words(Output),
    /// Some of its pictures.
    Pictures(Drawn),
}

/// Pictures that were drawn together.
pub struct Drawn {
    /// By ascending seed.
    pub pictures: Vec<EncodedPicture>,
    /// Tokens that the prompt has lost.
    pub dropped_tokens: usize,
    /// Modelled milliseconds of the NPU; `None` where the device models nothing.
    pub modelled_ms: Option<f64>,
}

/// The packs and the cores, for those who do work.
pub struct Studio {
    /// The packs.
    pub packs: Packs,
    /// What the cores do.
    pub activity: Arc<Activity>,
    clients: Mutex<HashMap<String, Client>>,
}

impl Studio {
    /// Of these packs.
    pub fn new(packs: Packs) -> Self {
        let activity = Activity::new(packs.cores().options().cores);
        Studio { packs, activity, clients: Mutex::default() }
    }

    /// Options of runs for a client.
    pub fn run_options(&self, client: &str, cancel: Cancel) -> RunOptions {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MOST_CLIENTS && !clients.contains_key(client) {
            clients.clear();
        }
        // Not the default one, which all share.
        let own = clients.get(client).copied().unwrap_or_else(Client::new);
        clients.insert(client.to_owned(), own);
        let client = own;
        let observer = Some(self.activity.observer());
        RunOptions { cancel, client, observer, ..RunOptions::default() }
    }

    /// Do a work, telling its job how far it is.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn work(
        &self,
        work: &Work,
        terms: &Terms,
        cancel: &Cancel,
        job: &Job,
    ) -> Result<Done, Failure> {
        let options = self.run_options(&terms.client, cancel.clone());
        let options = RunOptions { priority: terms.priority, deadline: terms.deadline, ..options };
        match work {
            Work::Draw(draw) => self.draw(draw, &options, job).map(Done::Pictures),
            Work::Describe(describe) => self.describe(describe, &options, job).map(Done::Words),
        }
    }

    fn draw(&self, draw: &Draw, options: &RunOptions, job: &Job) -> Result<Drawn, Failure> {
        let Draw { pack, request, format } = draw;
        let size = [request.width, request.height];
        let painter = self.packs.painter(pack, size).map_err(|e| failure(&e))?;
        let mut unencoded = None;
        let mut progress = |progress| {
            match progress {
                DrawProgress::Prompt { .. } | DrawProgress::Step { .. } | DrawProgress::Decoded => {
                    job.change(|state| state.done += 1);
                }
                DrawProgress::Preview { pictures, .. } => {
                    match encode(&pictures, request.seed, *format) {
                        Ok(shown) => job.change(|state| state.previews.push(Arc::new(shown))),
                        Err(error) => unencoded = Some(error),
                    }
                }
            }
            if options.cancel.is_cancelled() || unencoded.is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let drawing = painter.draw(request, options, &mut progress);
        if let Some(error) = unencoded {
            return Err(not_encoded(&error));
        }
        let drawing = drawing.map_err(|e| failure(&e))?;
        let pictures = encode(&drawing.pictures, request.seed, *format);
        let pictures = pictures.map_err(|e| not_encoded(&e))?;
        let (dropped_tokens, modelled_ms) = (drawing.dropped_tokens, modelled_ms(&drawing.trace));
        Ok(Drawn { pictures, dropped_tokens, modelled_ms })
    }

    fn describe(
        &self,
        describe: &Describe,
        options: &RunOptions,
        job: &Job,
    ) -> Result<Output, Failure> {
        let captioner = self.packs.captioner(&describe.pack).map_err(|e| failure(&e))?;
        let start = Instant::now();
        let conversation = captioner.conversation(describe.sampling, options.clone());
        let mut conversation = conversation.map_err(|e| failure(&e))?;
        let Some((question, before)) = describe.said.split_last() else {
            let message = "there is no message to answer".into();
            return Err(Failure { kind: FailureKind::Refused, message });
        };
        for said in before {
            conversation.recall(said.speaker, &said.text, &seen(&said.images)?);
        }
        let images = seen(&question.images)?;
        let mut answer = Stopping::new(&describe.stops);
        let mut tell = |words: &str| {
            let (words, ended) = answer.hear(words);
            job.change(|state| {
                state.words += words;
                state.done += 1;
            });
            let late = options.deadline.is_some_and(|deadline| Instant::now() > deadline);
            if ended || late || options.cancel.is_cancelled() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let said = conversation.ask(&question.text, &images, describe.most, &mut tell);
        let said = said.map_err(|e| failure(&e))?;
        let cut_off = match said.end {
            End::Stop => false,
            End::Length | End::Context => true,
            End::Interrupted if answer.is_over() => false,
            End::Interrupted => return Err(stopped(options)),
        };
        let tokens = [said.times.prompt_tokens, said.tokens.len()];
        let (text, rest) = answer.finish();
        job.change(|state| state.words += &rest);
        let text = text.trim_end().to_owned();
        Ok(Output::Words {
            text,
            cut_off,
            tokens,
            times: Times::since(start, modelled_ms(&said.trace)),
        })
    }
}

/// Images of files.
fn seen(files: &[bytes::Bytes]) -> Result<Vec<Rgb>, Failure> {
    let image = |file: &bytes::Bytes| {
        let image = Rgb::from_file(file);
        image.map_err(|e| Failure { kind: FailureKind::Refused, message: e.to_string() })
    };
    files.iter().map(image).collect()
}

/// Modelled milliseconds of the NPU.
fn modelled_ms(trace: &Trace) -> Option<f64> {
    trace.is_modelled().then(|| trace.modelled_total_us() / 1e3)
}

/// Files of pictures whose seeds count up.
pub fn encode(
    pictures: &[Picture],
    seed: u64,
    format: PictureFormat,
) -> Result<Vec<EncodedPicture>, PictureError> {
    let file = |(at, picture): (usize, &Picture)| {
        let bytes = encode_one(picture, format)?;
        let seed = seed.wrapping_add(at as u64);
        Ok(EncodedPicture { bytes: bytes.into(), seed, parameters: picture.parameters.clone() })
    };
    pictures.iter().enumerate().map(file).collect()
}

/// A picture's file.
pub fn encode_one(picture: &Picture, format: PictureFormat) -> Result<Vec<u8>, PictureError> {
    match format {
        PictureFormat::Png => picture.to_png(),
        PictureFormat::Jpeg(quality) => picture.to_jpeg(quality),
        PictureFormat::WebP => picture.to_webp(),
    }
}

fn not_encoded(error: &PictureError) -> Failure {
    Failure { kind: FailureKind::Device, message: error.to_string() }
}

fn stopped(options: &RunOptions) -> Failure {
    if options.cancel.is_cancelled() {
        Failure { kind: FailureKind::Cancelled, message: "it was cancelled".into() }
    } else {
        Failure { kind: FailureKind::TooLate, message: "its deadline has passed".into() }
    }
}

/// What an error of the library is for a client. What names files of this machine is logged and not told.
pub fn failure(error: &Error) -> Failure {
    use FailureKind::{Cancelled, Device, Refused, TooLate};
    let (kind, message) = match error {
        Error::Runtime(e) => return of_runtime(e),
        Error::Drawing(e) => return of_drawing(e),
        Error::Frame(e) => return of_drawing(e),
        Error::Prompt(_) | Error::Sampling(_) => (Refused, error.to_string()),
        Error::Language(rockshard::LanguageError::Context { .. }) => (Refused, error.to_string()),
        Error::StreamOver => (Cancelled, error.to_string()),
        _ => {
            tracing::error!("{error}");
            (Device, "the model cannot be used: the server's log says why".into())
        }
    };
    debug_assert!(kind != TooLate);
    Failure { kind, message }
}

fn of_drawing(error: &DrawingError) -> Failure {
    match error {
        DrawingError::Network { source, .. } => match source.downcast_ref::<RuntimeError>() {
            Some(error) => of_runtime(error),
            None => Failure { kind: FailureKind::Device, message: error.to_string() },
        },
        DrawingError::Cancelled => {
            Failure { kind: FailureKind::Cancelled, message: "it was cancelled".into() }
        }
        DrawingError::NotFinite { .. }
        | DrawingError::MissingNetwork { .. }
        | DrawingError::Interface { .. }
        | DrawingError::Tensor { .. }
        | DrawingError::Latent { .. } => {
            Failure { kind: FailureKind::Device, message: error.to_string() }
        }
        _ => Failure { kind: FailureKind::Refused, message: error.to_string() },
    }
}

fn of_runtime(error: &RuntimeError) -> Failure {
    let kind = match error {
        RuntimeError::Cancelled => FailureKind::Cancelled,
        RuntimeError::Deadline => FailureKind::TooLate,
        _ => FailureKind::Device,
    };
    if kind == FailureKind::Device {
        tracing::error!("{error}");
        let message = "the device failed: the server's log says how".into();
        return Failure { kind, message };
    }
    Failure { kind, message: error.to_string() }
}
