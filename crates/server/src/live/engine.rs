//! What draws for a session, on threads of its own.

use super::pictures::PictureEngine;
use super::protocol::{Change, Drawn, Frame, Source, Start, Told};
use super::words::WordEngine;
use crate::app::App;
use crate::http::ApiError;
use crate::packs::Kind;
use crate::routes::asked::{self, Size};
use crate::work::PictureFormat;
use rockshard::{Cancel, Priority, RunOptions};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// Quality of JPEG pictures.
const QUALITY: u8 = 85;

/// Something for the client.
pub enum Out {
    /// A message.
    Told(Told),
    /// A picture.
    Drawn(Drawn),
}

/// Where the session's threads put what is for the client. Nobody listens while the client is away.
pub type Outbox = UnboundedSender<Out>;

/// What a session draws with.
pub struct Canvas {
    /// Packs and cores.
    pub app: Arc<App>,
    /// Name of the model.
    pub model: String,
    /// Size of the pictures.
    pub size: [u32; 2],
    /// Their format.
    pub format: PictureFormat,
    /// Who asks, for fairness.
    pub client: String,
}

/// What draws for a session.
pub enum Engine {
    /// From frames.
    Pictures(PictureEngine),
    /// From words.
    Words(WordEngine),
}

impl Canvas {
    /// What a session asks for.
    ///
    /// # Errors
    /// A model, size or format that is not there.
    pub fn new(app: &Arc<App>, start: &Start, client: String) -> Result<Self, ApiError> {
        let pack = asked::pack(app, start.model.as_deref(), true)?;
        let Kind::Draws(sizes) = &pack.kind else {
            return Err(ApiError::no_model(format!("{} does not draw", pack.name)));
        };
        let size = start.size.as_deref().map_or(Ok(Size::Auto), Size::parse)?;
        let drawable = asked::drawable(sizes, size)?;
        if start.source == Source::Pictures && !drawable.takes_pictures() {
            return Err(ApiError::impossible(None, "this model cannot start from pictures"));
        }
        let format = match start.format.as_deref() {
            None | Some("jpeg") => PictureFormat::Jpeg(QUALITY),
            Some("png") => PictureFormat::Png,
            Some("webp") => PictureFormat::WebP,
            Some(other) => {
                let message = format!("format is {other:?}; it must be jpeg, png or webp");
                return Err(ApiError::invalid(None, message));
            }
        };
        let (app, model, size) = (app.clone(), pack.name.clone(), drawable.size());
        Ok(Canvas { app, model, size, format, client })
    }

    /// Options of its runs: somebody is looking.
    pub fn run_options(&self, cancel: Cancel) -> RunOptions {
        let options = self.app.studio.run_options(&self.client, cancel);
        RunOptions { priority: Priority::High, ..options }
    }
}

impl Engine {
    /// Begin to draw.
    ///
    /// # Errors
    /// Settings that the model cannot do, or a model that cannot be loaded. This takes the time of that.
    pub fn start(
        source: Source,
        canvas: Canvas,
        change: Change,
        outbox: Outbox,
    ) -> Result<Self, ApiError> {
        Ok(match source {
            Source::Pictures => Engine::Pictures(PictureEngine::start(canvas, &change, outbox)?),
            Source::Text => Engine::Words(WordEngine::start(canvas, change, outbox)?),
        })
    }

    /// Draw otherwise.
    pub fn change(&self, change: Change) {
        match self {
            Engine::Pictures(engine) => engine.change(change),
            Engine::Words(engine) => engine.change(change),
        }
    }

    /// Take a frame.
    pub fn offer(&self, frame: Frame) {
        if let Engine::Pictures(engine) = self {
            engine.offer(frame);
        }
    }

    /// A picture has reached the client.
    pub fn answered(&self) {
        if let Engine::Pictures(engine) = self {
            engine.answered();
        }
    }

    /// Forget what is under way: the client is away.
    pub fn pause(&self) {
        match self {
            Engine::Pictures(engine) => engine.pause(),
            Engine::Words(engine) => engine.pause(),
        }
    }

    /// Go on for a client that has come back.
    pub fn listen(&self, outbox: Outbox) {
        match self {
            Engine::Pictures(engine) => engine.listen(outbox),
            Engine::Words(engine) => engine.listen(outbox),
        }
    }

    /// Frames that may be unanswered.
    pub fn credits(&self) -> usize {
        match self {
            Engine::Pictures(engine) => engine.credits(),
            Engine::Words(_) => 0,
        }
    }

    /// Number of the settings.
    pub fn generation(&self) -> u64 {
        match self {
            Engine::Pictures(engine) => engine.generation(),
            Engine::Words(engine) => engine.generation(),
        }
    }

    /// What has happened so far.
    pub fn stats(&self) -> Option<Told> {
        match self {
            Engine::Pictures(engine) => Some(engine.stats()),
            Engine::Words(_) => None,
        }
    }
}

/// What cannot be done, as a message.
pub fn error(error: &ApiError, fatal: bool) -> Told {
    Told::Error { code: error.code().into(), message: error.message().into(), fatal }
}
