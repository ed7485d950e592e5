//! Whether threads take turns with a context: setting inputs, running and getting outputs are one step of one thread. A board mixes the
//! values of threads that do not, and says nothing.

use std::thread::ThreadId;

/// What threads did with a context since its last finished step.
#[derive(Default)]
pub(crate) struct Turns {
    /// Who set an input that no run has used yet.
    set: Vec<(usize, ThreadId)>,
    /// Who ran last, until the outputs are got.
    ran: Option<ThreadId>,
    /// Who ran before that and has not got its outputs: they are overwritten.
    lost: Vec<ThreadId>,
}

impl Turns {
    /// A thread sets an input.
    pub(crate) fn set(&mut self, thread: ThreadId, input: usize) {
        self.set.retain(|(at, _)| *at != input);
        self.set.push((input, thread));
    }

    /// A thread runs. False if it does so on inputs of another one.
    pub(crate) fn run(&mut self, thread: ThreadId) -> bool {
        let own = self.set.drain(..).fold(true, |own, (_, setter)| own && setter == thread);
        self.lost.extend(self.ran.replace(thread).filter(|&before| before != thread));
        self.lost.retain(|&t| t != thread);
        own
    }

    /// A thread gets outputs. False if they are of another one's run, and its own are lost.
    pub(crate) fn get(&mut self, thread: ThreadId) -> bool {
        let own = !self.lost.contains(&thread);
        self.lost.retain(|&t| t != thread);
        if own {
            self.ran = None;
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_told_from_overlaps() {
        let [a, b] =
            [0, 1].map(|_| std::thread::spawn(|| std::thread::current().id()).join().unwrap());
        let mut turns = Turns::default();
        turns.set(a, 0);
        assert!(turns.run(a) && turns.get(a) && turns.get(a), "one thread");
        turns.set(a, 0);
        assert!(turns.run(a) && turns.get(b), "outputs handed to another thread");
        turns.set(a, 0);
        turns.set(b, 0);
        assert!(turns.run(b) && turns.get(b), "a step that was given up");
        turns.set(a, 0);
        turns.set(b, 1);
        assert!(!turns.run(b), "inputs of both");
        turns.set(a, 0);
        turns.set(b, 0);
        assert!(!turns.run(a), "inputs of the other");
        assert!(turns.get(a));
        turns.set(a, 0);
        assert!(turns.run(a));
        turns.set(b, 0);
        assert!(turns.run(b) && !turns.get(a) && turns.get(b), "outputs of the other");
    }
}
