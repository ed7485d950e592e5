//! Server-sent events about a job, for as long as somebody listens.

use super::waiting::Waiting;
use crate::queue::{Job, JobState, Phase};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often a stream in which nothing happens says that it is alive; this also finds out that nobody listens.
const ALIVE: Duration = Duration::from_secs(10);

/// Makes events of what becomes known of a job.
pub trait Teller: Send + 'static {
    /// Events of what is new, the last ones when the job is over.
    fn tell(&mut self, job: &Job, state: &JobState, events: &mut VecDeque<Event>);
}

struct Telling<T> {
    waiting: Waiting,
    state: watch::Receiver<JobState>,
    teller: T,
    ready: VecDeque<Event>,
    over: bool,
}

/// The events of a job that is waited for. When nobody listens any more, the job is given up.
pub fn streamed<T: Teller>(waiting: Waiting, teller: T) -> Response {
    let state = waiting.job().watch();
    let telling = Telling { waiting, state, teller, ready: VecDeque::new(), over: false };
    let events = stream::unfold(telling, |mut t| async move {
        loop {
            if let Some(event) = t.ready.pop_front() {
                return Some((Ok::<_, Infallible>(event), t));
            }
            if t.over {
                return None;
            }
            let state = t.state.borrow_and_update().clone();
            let job: Arc<Job> = t.waiting.job().clone();
            t.teller.tell(&job, &state, &mut t.ready);
            t.over = state.phase == Phase::Over;
            if t.ready.is_empty() && !t.over && t.state.changed().await.is_err() {
                return None;
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE).text("alive")).into_response()
}
