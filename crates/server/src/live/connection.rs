//! A session's connection.

use super::engine::{Canvas, Engine, Out, error};
use super::protocol::{Frame, Said, Start, Told, VERSION};
use super::sessions::{KEPT, Place, Session};
use crate::app::App;
use crate::http::{ApiError, Caller};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, interval, timeout};

/// How long the first message may take, and a message to a client.
const FIRST: Duration = Duration::from_secs(10);
const SEND: Duration = Duration::from_secs(10);
/// How often a client is asked whether it is there, and after which silence it is not.
const PING: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);
/// How often is looked for a place, and statistics are told.
const LOOK: Duration = Duration::from_millis(100);
const STATS: Duration = Duration::from_secs(1);
/// Longest text message, in bytes.
const LONGEST_TEXT: usize = 256 << 10;
/// Messages that make no sense before the connection is closed.
const MOST_MISTAKES: usize = 10;

/// Why a connection ends.
enum End {
    /// The client went, or is silent: its session is kept.
    Lost,
    /// It is closed with this code; whether its session is kept.
    Close(u16, &'static str, bool),
}

/// Serve a connection until it ends.
pub async fn serve(app: Arc<App>, caller: Caller, mut socket: WebSocket) {
    let end = begin(&app, &caller, &mut socket).await;
    let Err(End::Close(code, reason, _)) = end else { return };
    let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    // The client may have gone.
    let _ = timeout(SEND, socket.send(close)).await;
}

async fn begin(app: &Arc<App>, caller: &Caller, socket: &mut WebSocket) -> Result<(), End> {
    let policy = |reason| End::Close(close_code::POLICY, reason, false);
    let first = timeout(FIRST, socket.recv()).await;
    let first = first.map_err(|_| policy("no start message came"))?;
    let Some(Ok(Message::Text(text))) = first else {
        return Err(policy("a start message is needed"));
    };
    if text.len() > LONGEST_TEXT {
        return Err(policy("the start message is too long"));
    }
    let start = match serde_json::from_str::<Said>(&text) {
        Ok(Said::Start(start)) => start,
        Ok(Said::Settings(_)) => return Err(policy("a start message is needed")),
        Err(problem) => {
            let problem = ApiError::invalid(None, format!("the start message: {problem}"));
            tell(socket, &error(&problem, true)).await?;
            return Err(policy("the start message is not understood"));
        }
    };
    let place = app.live.enter();
    let busy = || End::Close(close_code::AGAIN, "too many wait: try again later", false);
    let mut place = place.ok_or_else(busy)?;
    wait(app, socket, &mut place).await?;
    let (outbox, inbox) = unbounded_channel();
    let given = start.resume.clone();
    let kept = match &given {
        Some(token) => {
            // Old sessions end with that, whose threads are waited for.
            let (sessions, token) = (app.live.clone(), token.clone());
            let taking = tokio::task::spawn_blocking(move || sessions.take(&token));
            taking.await.unwrap_or_default()
        }
        None => None,
    };
    let resumed = kept.is_some();
    let session = match kept {
        Some(session) => {
            session.engine.listen(outbox);
            session
        }
        None => match open(app, caller, *start, outbox).await {
            Ok(session) => session,
            Err(problem) => {
                tell(socket, &error(&problem, true)).await?;
                return Err(policy("the session cannot be started"));
            }
        },
    };
    let token = crate::random::word();
    let [width, height] = session.size;
    let hello = Told::Hello {
        protocol: VERSION,
        resume: token.clone(),
        resumed,
        resume_seconds: KEPT.as_secs(),
        model: session.model.clone(),
        width,
        height,
        credits: session.engine.credits(),
        generation: session.engine.generation(),
    };
    let end = match tell(socket, &hello).await {
        Ok(()) => converse(app, socket, &session.engine, inbox).await,
        Err(end) => end,
    };
    drop(place);
    let keep = !matches!(end, End::Close(_, _, false));
    let sessions = app.live.clone();
    // Its threads end with it.
    let parked = tokio::task::spawn_blocking(move || {
        if keep {
            sessions.keep(token, session);
        }
    });
    let _ = parked.await;
    if keep {
        let sessions = app.live.clone();
        tokio::spawn(async move {
            tokio::time::sleep(KEPT + LOOK).await;
            let _ = tokio::task::spawn_blocking(move || sessions.sweep()).await;
        });
    }
    Err(end)
}

/// Wait for a place, telling the client where it stands.
async fn wait(app: &App, socket: &mut WebSocket, place: &mut Place) -> Result<(), End> {
    let mut told = 0;
    let mut look = interval(LOOK);
    let mut heard = Instant::now();
    let mut ping = interval(PING);
    loop {
        if app.live.is_closed() {
            return Err(End::Close(close_code::AWAY, "the server is about to stop", false));
        }
        let position = place.position();
        if position == 0 {
            return Ok(());
        }
        if position != told {
            tell(socket, &Told::Queued { position, wait_s: None }).await?;
            told = position;
        }
        tokio::select! {
            _ = look.tick() => {}
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE {
                    return Err(End::Lost);
                }
                send(socket, Message::Ping(Default::default())).await?;
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Lost),
                Some(Ok(_)) => heard = Instant::now(),
            },
        }
    }
}

async fn open(
    app: &Arc<App>,
    caller: &Caller,
    start: Start,
    outbox: super::engine::Outbox,
) -> Result<Session, ApiError> {
    let client = format!("{} live {}", caller.name, crate::random::word());
    let canvas = Canvas::new(app, &start, client)?;
    let (model, size) = (canvas.model.clone(), canvas.size);
    let Start { source, change, .. } = start;
    // Loading takes its time, and encoding the prompt.
    let starting =
        tokio::task::spawn_blocking(move || Engine::start(source, canvas, change, outbox));
    let engine = starting.await.map_err(|_| ApiError::failed("the session was lost"))??;
    Ok(Session { engine, model, size })
}

/// Pass everything on until the connection ends.
async fn converse(
    app: &App,
    socket: &mut WebSocket,
    engine: &Engine,
    mut inbox: UnboundedReceiver<Out>,
) -> End {
    let mut stats = interval(STATS);
    let mut ping = interval(PING);
    let mut heard = Instant::now();
    let mut mistakes = 0;
    loop {
        let sent = tokio::select! {
            out = inbox.recv() => match out {
                Some(Out::Told(told)) => tell(socket, &told).await,
                Some(Out::Drawn(drawn)) => {
                    let sent = send(socket, Message::Binary(drawn.message().into())).await;
                    engine.answered();
                    sent
                }
                None => return End::Lost,
            },
            message = socket.recv() => {
                heard = Instant::now();
                match message {
                    Some(Ok(message)) => match take(engine, message) {
                        Took::Well => Ok(()),
                        Took::Closed => return End::Close(close_code::NORMAL, "", true),
                        Took::Mistake(problem) => {
                            mistakes += 1;
                            if mistakes > MOST_MISTAKES {
                                return End::Close(close_code::POLICY, "too many mistakes", false);
                            }
                            tell(socket, &error(&problem, false)).await
                        }
                    },
                    Some(Err(_)) | None => return End::Lost,
                }
            }
            _ = stats.tick() => {
                if app.live.is_closed() {
                    return End::Close(close_code::AWAY, "the server is about to stop", false);
                }
                match engine.stats() {
                    Some(stats) => tell(socket, &stats).await,
                    None => Ok(()),
                }
            }
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE {
                    return End::Lost;
                }
                send(socket, Message::Ping(Default::default())).await
            }
        };
        if let Err(end) = sent {
            return end;
        }
    }
}

/// How a message was taken.
enum Took {
    Well,
    Closed,
    Mistake(ApiError),
}

fn take(engine: &Engine, message: Message) -> Took {
    let mistake = |what: String| Took::Mistake(ApiError::invalid(None, what));
    match message {
        Message::Binary(bytes) => match Frame::parse(&bytes) {
            Some(frame) => {
                engine.offer(frame);
                Took::Well
            }
            None => mistake("a binary message is not a frame".into()),
        },
        Message::Text(text) if text.len() > LONGEST_TEXT => mistake("a message is too long".into()),
        Message::Text(text) => match serde_json::from_str::<Said>(&text) {
            Ok(Said::Settings(change)) => {
                engine.change(*change);
                Took::Well
            }
            Ok(Said::Start(_)) => mistake("the session has started already".into()),
            Err(problem) => mistake(format!("a message is not understood: {problem}")),
        },
        Message::Close(_) => Took::Closed,
        Message::Ping(_) | Message::Pong(_) => Took::Well,
    }
}

async fn tell(socket: &mut WebSocket, told: &Told) -> Result<(), End> {
    let text = serde_json::to_string(told).unwrap_or_default();
    send(socket, Message::Text(text.into())).await
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), End> {
    match timeout(SEND, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Lost),
    }
}
