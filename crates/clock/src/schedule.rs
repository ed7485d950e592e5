//! What a simulation gives: when each task was ready, started and ended, and figures that follow from that.

use crate::Task;
use serde::Serialize;

/// When a task ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Span {
    /// The task, by index.
    pub task: usize,
    /// Microsecond at which all it needed was there.
    pub ready_us: f64,
    /// Microsecond at which it started.
    pub start_us: f64,
    /// Microsecond at which it ended.
    pub end_us: f64,
}

/// When each task ran; a span a task, in the tasks' order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Schedule {
    /// The spans.
    pub spans: Vec<Span>,
}

impl Schedule {
    /// Microseconds from the start to the end of the last task.
    pub fn total_us(&self) -> f64 {
        self.spans.iter().map(|s| s.end_us).fold(0.0, f64::max)
    }

    /// Microsecond at which the last task of an item ends.
    pub fn item_end_us(&self, tasks: &[Task], item: usize) -> f64 {
        self.spans
            .iter()
            .filter(|s| tasks[s.task].item == item)
            .map(|s| s.end_us)
            .fold(0.0, f64::max)
    }

    /// Microseconds that a core is busy between two times.
    pub fn busy_us(&self, tasks: &[Task], core: u8, from_us: f64, to_us: f64) -> f64 {
        let on = self.spans.iter().filter(|s| tasks[s.task].cores.contains(&core));
        on.map(|s| (s.end_us.min(to_us) - s.start_us.max(from_us)).max(0.0)).sum()
    }

    /// Microseconds by which the tasks took longer than alone, because they shared the memory.
    pub fn memory_wait_us(&self, tasks: &[Task]) -> f64 {
        self.spans.iter().map(|s| (s.end_us - s.start_us - tasks[s.task].micros()).max(0.0)).sum()
    }

    /// The tasks that decide when the last one ends, first to last: each starts when the one before it ends, because it needs it or its core.
    pub fn critical_path(&self, tasks: &[Task]) -> Vec<usize> {
        let Some(last) = self.spans.iter().max_by(|a, b| a.end_us.total_cmp(&b.end_us)) else {
            return Vec::new();
        };
        let mut path = vec![last.task];
        let mut at = *last;
        loop {
            let needs = tasks[at.task].needs.iter().map(|&n| &self.spans[n]);
            let shares =
                |s: &&Span| tasks[s.task].cores.iter().any(|c| tasks[at.task].cores.contains(c));
            let before = self
                .spans
                .iter()
                .filter(|s| s.task != at.task && s.end_us <= at.start_us)
                .filter(shares);
            let Some(previous) = needs
                .chain(before)
                .max_by(|a, b| a.end_us.total_cmp(&b.end_us))
                .filter(|s| s.end_us > 0.0)
            else {
                break;
            };
            path.push(previous.task);
            at = *previous;
        }
        path.reverse();
        path
    }
}
