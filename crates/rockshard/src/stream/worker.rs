//! What a stream's threads do: one after the other they let frames enter, and draw them at the same time.

use super::queue::{End, Queue, Taken};
use crate::Error;
use crate::networks::PackNetworks;
use rockshard_diffusion::stream::{Entered, Frames, Group};
use std::sync::{Arc, Mutex, PoisonError};

pub(super) struct Worker {
    pub frames: Frames,
    pub queue: Queue,
    networks: Arc<PackNetworks>,
    /// Held by the thread that lets frames enter.
    entrance: Mutex<()>,
}

/// A frame on its way, without what it is made of.
struct OnItsWay {
    number: u64,
    order: u64,
    since: std::time::Instant,
}

impl Worker {
    pub fn new(frames: Frames, networks: Arc<PackNetworks>, queue: Queue) -> Self {
        Worker { frames, queue, networks, entrance: Mutex::new(()) }
    }

    /// Draw until no more frames come.
    pub fn serve(&self) {
        while let Some((on_their_way, group)) = self.enter() {
            let generation = group.as_ref().map_or(0, Group::generation);
            let drawn = group.and_then(|group| self.frames.draw(group));
            self.queue.ran(self.networks.take_trace());
            match drawn {
                Ok(pictures) => {
                    for (frame, picture) in on_their_way.iter().zip(pictures) {
                        self.done(frame, End::Drawn(picture, generation));
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for frame in &on_their_way {
                        self.done(frame, End::Failed(Error::Frame(error.clone())));
                    }
                }
            }
        }
    }

    fn done(&self, frame: &OnItsWay, end: End) {
        self.queue.done(frame.order, frame.number, frame.since, end);
    }

    /// Take as many frames as enter together, fewer at the end.
    fn enter(&self) -> Option<(Vec<OnItsWay>, Result<Group, rockshard_diffusion::Error>)> {
        let _entrance = self.entrance.lock().unwrap_or_else(PoisonError::into_inner);
        let together = self.frames.config().frame_buffer_size;
        let (mut on_their_way, mut entered): (Vec<OnItsWay>, Vec<Entered>) = Default::default();
        while entered.len() < together {
            let Some(Taken { number, order, source, since }) = self.queue.take() else { break };
            let frame = OnItsWay { number, order, since };
            match self.frames.enter(source) {
                Ok(Some(e)) => {
                    entered.push(e);
                    on_their_way.push(frame);
                }
                Ok(None) => self.done(&frame, End::Skipped),
                Err(error) => self.done(&frame, End::Failed(error.into())),
            }
        }
        if entered.is_empty() {
            return None;
        }
        Some((on_their_way, self.frames.group(entered)))
    }
}
