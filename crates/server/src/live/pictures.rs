//! Pictures from frames, over the stream engine. One frame waits at most; a newer one takes its place.

use super::engine::{Canvas, Out, Outbox, error};
use super::protocol::{Change, Drawn, Frame, SKIPPED, Told};
use crate::http::ApiError;
use crate::routes::asked;
use crate::studio::encode_one;
use rockshard::{
    Cancel, FrameSource, Picture, QueueOptions, Settings, Stream, StreamConfig, StreamFrame,
};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Frames beside one for each core that sessions have under way together: one is with the host (pixels, sending) while the cores are busy. More would only wait, and
/// be old when they are shown.
const BESIDE_CORES: usize = 1;
/// Frames that the stream has room for: more than ever are under way.
const ROOM: usize = 8;
/// The similarity filter skips at most so many frames in a row.
const MOST_SKIPPED: usize = 10;
/// Strength where nothing is said.
const USUAL_STRENGTH: f64 = 0.5;

/// A frame on its way.
struct Waiting {
    frame: Frame,
    since: Instant,
}

#[derive(Default)]
struct State {
    /// The frame that is next.
    next: Option<Waiting>,
    /// Frames that the stream has, in order; those from before a pause are not answered.
    under_way: VecDeque<(Waiting, bool)>,
    /// Pictures that have not reached the client yet.
    unanswered: usize,
    change: Option<Change>,
    settings: Change,
    generation: u64,
    received: u64,
    drawn: u64,
    dropped: u64,
    skipped: u64,
    outbox: Option<Outbox>,
    stopped: bool,
}

struct Shared {
    canvas: Canvas,
    stream: Stream,
    state: Mutex<State>,
    changed: Condvar,
}

/// Draws from frames.
pub struct PictureEngine {
    shared: Arc<Shared>,
    cancel: Cancel,
    threads: Vec<JoinHandle<()>>,
}

impl PictureEngine {
    /// Begin.
    ///
    /// # Errors
    /// Settings that the model cannot do, or a model that cannot be loaded.
    pub fn start(canvas: Canvas, change: &Change, outbox: Outbox) -> Result<Self, ApiError> {
        let packs = &canvas.app.studio.packs;
        let model = packs.stream(&canvas.model, canvas.size).map_err(|e| asked::of_error(&e))?;
        let cancel = Cancel::default();
        let queue = QueueOptions { capacity: ROOM, drop_stale: false };
        let settings = settings(&canvas, change)?;
        let options = canvas.run_options(cancel.clone());
        let stream = model.prepare_with(StreamConfig::default(), settings, queue, options);
        let stream = stream.map_err(|e| asked::of_error(&e))?;
        filter(&stream, change);
        let state = State { settings: change.clone(), outbox: Some(outbox), ..State::default() };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { canvas, stream, state, changed });
        let mut engine = PictureEngine { shared, cancel, threads: Vec::new() };
        for work in [Shared::feed as fn(&Shared), Shared::fetch] {
            let shared = engine.shared.clone();
            let thread = std::thread::Builder::new().name("live-pictures".into());
            let thread = thread.spawn(move || work(&shared));
            let failed = |_| ApiError::failed("a thread cannot be started");
            engine.threads.push(thread.map_err(failed)?);
        }
        Ok(engine)
    }

    /// Draw otherwise, from the next frame on.
    pub fn change(&self, change: Change) {
        let mut state = self.shared.state();
        let older = state.change.take().unwrap_or_default();
        state.change = Some(change.over(older));
        self.shared.changed.notify_all();
    }

    /// Take a frame.
    pub fn offer(&self, frame: Frame) {
        let mut state = self.shared.state();
        state.received += 1;
        let replaced = state.next.replace(Waiting { frame, since: Instant::now() });
        if let Some(old) = replaced {
            self.shared.dropped(&mut state, &old);
        }
        self.shared.changed.notify_all();
    }

    /// A picture has reached the client.
    pub fn answered(&self) {
        let mut state = self.shared.state();
        state.unanswered = state.unanswered.saturating_sub(1);
        self.shared.changed.notify_all();
    }

    /// Forget what is under way.
    pub fn pause(&self) {
        let mut state = self.shared.state();
        (state.next, state.outbox, state.unanswered) = (None, None, 0);
        state.under_way.iter_mut().for_each(|(_, wanted)| *wanted = false);
    }

    /// Go on.
    pub fn listen(&self, outbox: Outbox) {
        self.shared.state().outbox = Some(outbox);
    }

    /// Frames that may be unanswered: those that are drawn, and one that waits.
    pub fn credits(&self) -> usize {
        self.shared.cores() + 1
    }

    /// Number of the settings.
    pub fn generation(&self) -> u64 {
        self.shared.state().generation
    }

    /// What has happened so far.
    pub fn stats(&self) -> Told {
        let State { received, drawn, dropped, skipped, .. } = *self.shared.state();
        Told::Stats { received, drawn, dropped, skipped }
    }
}

impl Drop for PictureEngine {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
        self.shared.changed.notify_all();
        self.cancel.cancel();
        self.shared.stream.finish();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cores(&self) -> usize {
        usize::from(self.canvas.app.studio.packs.cores().options().cores)
    }

    /// Frames that this session may have under way beside the others.
    fn room(&self) -> usize {
        let (active, _) = self.canvas.app.live.counts();
        let share = (self.cores() + BESIDE_CORES).div_ceil(active.max(1));
        share.clamp(1, self.cores())
    }

    fn tell(&self, state: &State, told: Told) {
        if let Some(outbox) = &state.outbox {
            // The client may just have gone.
            let _ = outbox.send(Out::Told(told));
        }
    }

    fn count(&self, outcome: &str) {
        self.canvas.app.metrics.live_frames.with_label_values(&[outcome]).inc();
    }

    fn dropped(&self, state: &mut State, waiting: &Waiting) {
        state.dropped += 1;
        self.count("dropped");
        self.tell(state, Told::Dropped { seq: waiting.frame.seq });
    }

    /// Let frames enter the stream, and settings.
    fn feed(&self) {
        loop {
            let mut state = self.state();
            let work = loop {
                if state.stopped {
                    return;
                }
                if let Some(change) = state.change.take() {
                    break Err(change);
                }
                if state.under_way.len() + state.unanswered < self.room()
                    && let Some(next) = state.next.take()
                {
                    break Ok(next);
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            match work {
                Ok(waiting) => self.enter(waiting),
                Err(change) => self.apply(change),
            }
        }
    }

    fn enter(&self, waiting: Waiting) {
        let most = self.canvas.app.options.limits.pixels;
        match Picture::from_bytes_within(&waiting.frame.file, most) {
            Ok(picture) => {
                // Entered first: the frame may be drawn before `push` returns.
                self.state().under_way.push_back((waiting, true));
                if self.stream.push(FrameSource::Picture(picture)).is_err() {
                    self.state().under_way.pop_back();
                }
            }
            Err(problem) => {
                let mut state = self.state();
                self.dropped(&mut state, &waiting);
                let problem = asked::not_a_picture("frame", &problem);
                self.tell(&state, error(&problem, false));
            }
        }
    }

    fn apply(&self, change: Change) {
        let all = change.over(self.state().settings.clone());
        let updated = settings(&self.canvas, &all)
            .and_then(|s| self.stream.update(s, 0).map_err(|e| asked::of_error(&e)));
        let mut state = self.state();
        match updated {
            Ok(generation) => {
                filter(&self.stream, &all);
                (state.settings, state.generation) = (all, generation);
                let dropped_tokens = self.stream.dropped_tokens();
                self.tell(&state, Told::Settings { generation, dropped_tokens });
            }
            Err(problem) => self.tell(&state, error(&problem, false)),
        }
    }

    /// Take what the stream has drawn.
    fn fetch(&self) {
        while let Some(frame) = self.stream.next_frame() {
            self.stream.take_incidents();
            let entered = self.state().under_way.pop_front();
            let Some((waiting, wanted)) = entered else { continue };
            let drawn = frame.map_err(|e| asked::of_error(&e));
            let drawn = drawn.and_then(|frame| self.drawn(&waiting, &frame));
            let mut state = self.state();
            match drawn {
                Ok(_) if !wanted => {}
                Ok((drawn, skipped)) => {
                    if skipped {
                        state.skipped += 1;
                    } else {
                        state.drawn += 1;
                    }
                    self.count(if skipped { "skipped" } else { "drawn" });
                    let seconds = waiting.since.elapsed().as_secs_f64();
                    self.canvas.app.metrics.live_latency.observe(seconds);
                    if state.outbox.as_ref().is_some_and(|o| o.send(Out::Drawn(drawn)).is_ok()) {
                        state.unanswered += 1;
                    }
                }
                Err(problem) => {
                    self.count("failed");
                    self.tell(&state, Told::Dropped { seq: waiting.frame.seq });
                    self.tell(&state, error(&problem, false));
                }
            }
            self.changed.notify_all();
        }
    }

    fn drawn(&self, waiting: &Waiting, frame: &StreamFrame) -> Result<(Drawn, bool), ApiError> {
        let file = encode_one(&frame.picture, self.canvas.format);
        let file = file.map_err(|e| ApiError::failed(e.to_string()))?;
        let drawn = Drawn {
            seq: waiting.frame.seq,
            generation: frame.generation,
            latency_us: waiting.since.elapsed().as_micros() as u64,
            client_time: waiting.frame.client_time,
            flags: if frame.skipped { SKIPPED } else { 0 },
            file,
        };
        Ok((drawn, frame.skipped))
    }
}

/// Settings of the stream.
fn settings(canvas: &Canvas, change: &Change) -> Result<Settings, ApiError> {
    let (usual, most) = (Settings::default(), canvas.app.options.limits.prompt);
    for (name, text) in [("prompt", &change.prompt), ("negative_prompt", &change.negative_prompt)] {
        text.as_ref().map_or(Ok(()), |text| asked::check_length(name, text, most))?;
    }
    let prompt = change.prompt.clone().unwrap_or_default();
    let settings = Settings {
        prompts: vec![(prompt, 1.0)],
        negative_prompt: change.negative_prompt.clone().unwrap_or_default(),
        seed: change.seed.unwrap_or(usual.seed),
        guidance_scale: change.guidance_scale.unwrap_or(usual.guidance_scale),
        ..usual
    };
    let strength = change.strength.unwrap_or(USUAL_STRENGTH);
    let refused = |e: rockshard::DrawingError| asked::of_error(&rockshard::Error::Drawing(e));
    settings.with_strength(strength).map_err(refused)
}

/// Skip frames that are like the last one, as the settings say.
fn filter(stream: &Stream, change: &Change) {
    match change.similarity {
        Some(threshold) if threshold > 0.0 && threshold <= 1.0 => {
            stream.enable_similar_image_filter(threshold, MOST_SKIPPED);
        }
        _ => stream.disable_similar_image_filter(),
    }
}
