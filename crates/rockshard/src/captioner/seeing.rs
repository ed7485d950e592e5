//! Views on their way through the vision encoder: features come one view after the other, while words are fed already.

use super::Captioner;
use crate::{Error, ModelInputs, TensorMap};
use rockshard_manifest::{Companion, Model, Role, TensorSpec};
use rockshard_pack::Pack;
use rockshard_runtime::{Event, Observer, RunOptions, Ticket, Trace};
use rockshard_tensor::{DType, Tensor};
use rockshard_vlm::{Rgb, Views};
use std::sync::mpsc::{Receiver, channel};

/// What an observer tells.
enum Told {
    View(usize, TensorMap),
    Ended,
}

/// Views that were submitted together.
pub(super) struct Seeing {
    ticket: Option<Ticket>,
    told: Receiver<Told>,
    /// Whether the run is over: nothing more is told then.
    ended: bool,
    output: String,
    /// Features of each view, as far as they are there.
    features: Vec<Option<Vec<f32>>>,
    trace: Trace,
}

impl Seeing {
    /// Start the vision encoder on all views.
    pub fn start(
        captioner: &Captioner,
        views: &[Views],
        options: &RunOptions,
    ) -> Result<Self, Error> {
        let items = items(&captioner.vision, views);
        let (send, told) = channel();
        let observer = Observer::new(move |event| {
            // Whoever listened may have gone.
            let _ = match event {
                Event::Item { item, outputs } => send.send(Told::View(item, outputs.clone())),
                Event::Ended => send.send(Told::Ended),
                Event::Shard(_) => Ok(()),
            };
        });
        let options = RunOptions { observer: Some(observer), ..options.clone() };
        let features = vec![None; items.len()];
        let output = captioner.vision.outputs[0].name.clone();
        let ticket = if items.is_empty() {
            None
        } else {
            Some(captioner.loaded.submit(&captioner.vision.name, items, &options)?)
        };
        Ok(Seeing { ticket, told, ended: false, output, features, trace: Trace::default() })
    }

    /// The features of a view, if they are there.
    pub fn ready(&mut self, view: usize) -> Option<&[f32]> {
        while let Ok(told) = self.told.try_recv() {
            self.hear(Some(told));
        }
        self.features[view].as_deref()
    }

    /// The features of a view, waiting for them.
    pub fn wait(&mut self, view: usize) -> Result<&[f32], Error> {
        while self.features[view].is_none() {
            if !self.ended {
                let told = self.told.recv().ok();
                self.hear(told);
                continue;
            }
            // Over without this view: the outcome says why.
            let outputs = self.outcome()?.unwrap_or_default();
            for (item, outputs) in outputs.iter().enumerate() {
                self.keep(item, outputs);
            }
            if self.features[view].is_none() {
                return Err(rockshard_runtime::RuntimeError::Executor("the views".into()).into());
            }
        }
        Ok(self.features[view].as_deref().unwrap_or_default())
    }

    fn hear(&mut self, told: Option<Told>) {
        match told {
            Some(Told::View(item, outputs)) => self.keep(item, &outputs),
            Some(Told::Ended) | None => self.ended = true,
        }
    }

    fn keep(&mut self, item: usize, outputs: &TensorMap) {
        let values = outputs.get(&self.output).and_then(|t| t.to_f32().ok());
        self.features[item] = values.map(|v| v.into_owned());
    }

    fn outcome(&mut self) -> Result<Option<Vec<TensorMap>>, Error> {
        let Some(ticket) = self.ticket.take() else { return Ok(None) };
        let outcome = ticket.wait();
        self.trace.extend(outcome.trace);
        Ok(Some(outcome.outputs?))
    }

    /// What ran, when all of it is over.
    pub fn finish(mut self) -> Result<Trace, Error> {
        self.outcome()?;
        Ok(self.trace)
    }
}

/// What a vision encoder is given for the whole of a picture; nothing where the pack describes no pictures.
///
/// # Errors
/// A preprocessor's configuration that cannot be used.
pub fn picture_inputs(pack: &Pack, picture: &Rgb) -> Result<ModelInputs, Error> {
    let models = &pack.manifest().models;
    let Some(vision) = models.iter().find(|m| m.role == Role::VisionEncoder) else {
        return Ok(ModelInputs::new());
    };
    let Some(folder) = super::folder(pack, Companion::Preprocessor)? else {
        return Ok(ModelInputs::new());
    };
    if !folder.join(super::PROCESSOR_FILE).is_file() {
        return Ok(ModelInputs::new());
    }
    let views = super::processor(&folder)?.with_grid(1)?.views(picture);
    let inputs = items(vision, &[views]).pop().unwrap_or_default();
    Ok([(vision.name.clone(), inputs)].into())
}

/// What the vision encoder takes for each view.
pub(super) fn items(vision: &Model, views: &[Views]) -> Vec<TensorMap> {
    let all = views.iter().flat_map(|v| (0..v.count()).filter_map(|at| v.pixel_values(at)));
    let item = |pixels: Tensor| {
        let input = |spec: &TensorSpec| (spec.name.clone(), input(spec, &pixels));
        vision.inputs.iter().map(input).collect()
    };
    all.map(item).collect()
}

/// What an input of the vision encoder takes for a view: its pixels, or a mask that shows all of them.
fn input(spec: &TensorSpec, pixels: &Tensor) -> Tensor {
    let count: usize = spec.shape.iter().product();
    if spec.name.contains("mask") {
        return match spec.dtype {
            DType::Bool => Tensor::from_bool(spec.shape.clone(), vec![true; count]),
            DType::I32 => Tensor::from_i32(spec.shape.clone(), vec![1; count]),
            DType::I64 => Tensor::from_i64(spec.shape.clone(), vec![1; count]),
            _ => Tensor::from_f32(spec.shape.clone(), vec![1.0; count]),
        };
    }
    // [1, 3, side, side], or the same with an axis of views; what does not fit, submitting refuses.
    pixels.reshape(spec.shape.clone()).unwrap_or_else(|_| pixels.clone())
}
