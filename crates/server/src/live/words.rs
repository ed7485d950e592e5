//! Pictures from words, as they are typed: what is drawn for older words is given up.

use super::engine::{Canvas, Out, Outbox, error};
use super::protocol::{Change, Drawn, Told, UNFINISHED};
use crate::http::ApiError;
use crate::routes::asked::{Asked, Size};
use crate::studio::{encode_one, failure};
use crate::work::{Draw, FailureKind, Work};
use rockshard::{Cancel, DrawProgress, Picture};
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Requests of at least so many steps show unfinished pictures.
const LONG: usize = 10;
const PREVIEWS: u32 = 3;

struct State {
    settings: Change,
    generation: u64,
    /// When the settings came that are not drawn yet.
    asked: Option<Instant>,
    /// Gives up what is drawn now.
    drawing: Cancel,
    outbox: Option<Outbox>,
    stopped: bool,
}

struct Shared {
    canvas: Canvas,
    state: Mutex<State>,
    changed: Condvar,
}

/// Draws from words.
pub struct WordEngine {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl WordEngine {
    /// Begin.
    ///
    /// # Errors
    /// Settings that the model cannot do.
    pub fn start(canvas: Canvas, change: Change, outbox: Outbox) -> Result<Self, ApiError> {
        draw(&canvas, &change)?;
        let state = State {
            settings: change,
            generation: 1,
            asked: Some(Instant::now()),
            drawing: Cancel::default(),
            outbox: Some(outbox),
            stopped: false,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { canvas, state, changed });
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("live-words".into());
        let thread = thread.spawn(move || own.serve());
        let thread = thread.map_err(|_| ApiError::failed("a thread cannot be started"))?;
        Ok(WordEngine { shared, thread: Some(thread) })
    }

    /// Draw with other settings.
    pub fn change(&self, change: Change) {
        let mut state = self.shared.state();
        let settings = change.over(state.settings.clone());
        if let Err(problem) = draw(&self.shared.canvas, &settings) {
            state.tell(Out::Told(error(&problem, false)));
            return;
        }
        (state.settings, state.asked) = (settings, Some(Instant::now()));
        state.generation += 1;
        state.drawing.cancel();
        let (generation, dropped_tokens) = (state.generation, 0);
        state.tell(Out::Told(Told::Settings { generation, dropped_tokens }));
        self.shared.changed.notify_all();
    }

    /// Give up what is drawn.
    pub fn pause(&self) {
        let mut state = self.shared.state();
        (state.outbox, state.asked) = (None, None);
        state.drawing.cancel();
    }

    /// Draw again for a client that has come back.
    pub fn listen(&self, outbox: Outbox) {
        let mut state = self.shared.state();
        (state.outbox, state.asked) = (Some(outbox), Some(Instant::now()));
        self.shared.changed.notify_all();
    }

    /// Number of the settings.
    pub fn generation(&self) -> u64 {
        self.shared.state().generation
    }
}

impl Drop for WordEngine {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.stopped = true;
            state.drawing.cancel();
        }
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn tell(&self, out: Out) {
        if let Some(outbox) = &self.outbox {
            // The client may just have gone.
            let _ = outbox.send(out);
        }
    }
}

/// What settings ask for.
fn draw(canvas: &Canvas, change: &Change) -> Result<Draw, ApiError> {
    let asked = Asked {
        model: Some(canvas.model.clone()),
        prompt: change.prompt.clone().unwrap_or_default(),
        negative: change.negative_prompt.clone(),
        size: Size::Of(canvas.size),
        seed: Some(change.seed.map_or(0, |seed| i64::try_from(seed).unwrap_or(i64::MAX))),
        steps: change.steps,
        guidance: change.guidance_scale,
        format: canvas.format,
        ..Asked::default()
    };
    let work = asked.work(&canvas.app)?;
    let Work::Draw(mut draw) = work else { return Err(ApiError::failed("it does not draw")) };
    if draw.request.steps >= LONG {
        draw.request.previews = PREVIEWS;
    }
    Ok(*draw)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        loop {
            let mut state = self.state();
            let since = loop {
                if state.stopped {
                    return;
                }
                if let Some(since) = state.asked.take() {
                    break since;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            state.drawing = Cancel::default();
            let (cancel, generation) = (state.drawing.clone(), state.generation);
            let settings = state.settings.clone();
            drop(state);
            if let Err(problem) = self.draw(&settings, generation, since, &cancel) {
                self.canvas.app.metrics.live_frames.with_label_values(&["failed"]).inc();
                self.state().tell(Out::Told(error(&problem, false)));
            }
        }
    }

    fn draw(
        &self,
        settings: &Change,
        generation: u64,
        since: Instant,
        cancel: &Cancel,
    ) -> Result<(), ApiError> {
        let canvas = &self.canvas;
        let draw = draw(canvas, settings)?;
        let painter = canvas.app.studio.packs.painter(&canvas.model, canvas.size);
        let painter = painter.map_err(|e| ApiError::from(failure(&e)))?;
        let show = |picture: &Picture, flags: u16| {
            let Ok(file) = encode_one(picture, canvas.format) else { return };
            let latency_us = since.elapsed().as_micros() as u64;
            let (seq, client_time) = (0, 0);
            let drawn = Drawn { seq, generation, latency_us, client_time, flags, file };
            self.state().tell(Out::Drawn(drawn));
        };
        let mut progress = |progress| {
            if let DrawProgress::Preview { pictures, .. } = progress {
                pictures.iter().for_each(|picture| show(picture, UNFINISHED));
            }
            if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let options = canvas.run_options(cancel.clone());
        match painter.draw(&draw.request, &options, &mut progress) {
            Ok(drawing) => {
                drawing.pictures.iter().for_each(|picture| show(picture, 0));
                canvas.app.metrics.live_frames.with_label_values(&["drawn"]).inc();
                canvas.app.metrics.live_latency.observe(since.elapsed().as_secs_f64());
                Ok(())
            }
            Err(problem) => {
                let failure = failure(&problem);
                if failure.kind == FailureKind::Cancelled {
                    canvas.app.metrics.live_frames.with_label_values(&["dropped"]).inc();
                    return Ok(());
                }
                Err(failure.into())
            }
        }
    }
}
