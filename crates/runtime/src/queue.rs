//! Who is next on a core: start-time fair queueing (Goyal, Vin and Cheng 1996) of clients, at the grain of a job.
//!
//! Each client has a virtual time: the seconds that its jobs took on this core, over its weight. The client that is furthest behind
//! goes next. One that comes to wait starts at the core's virtual time, that of the job which was taken last: it waits for the
//! job that is running and no longer, and gains nothing from having been away. Of a client's own jobs the one goes first whose run and
//! item came first, so that items end in their order and a job that is tried again does not wait for others.

use std::collections::{BTreeMap, HashMap};

/// Who a job is for, and with which weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    /// The client's number.
    pub client: u64,
    /// Its part of a core relative to others that wait; above 0.
    pub weight: f64,
}

/// Place of a job among those of its client: run, item, shard.
pub(crate) type Order = (u64, usize, usize);

/// The jobs that wait for a core.
pub(crate) struct FairQueue<J> {
    clients: HashMap<u64, Backlog<J>>,
    /// Virtual time in seconds.
    now: f64,
    /// Jobs that were pushed so far: tells the order of equals.
    pushed: u64,
    waiting: usize,
    running: usize,
}

struct Backlog<J> {
    /// Jobs by their order, and by number where that is the same.
    jobs: BTreeMap<(Order, u64), J>,
    /// Virtual time in seconds.
    used: f64,
    running: usize,
}

impl<J> Default for FairQueue<J> {
    fn default() -> Self {
        FairQueue { clients: HashMap::new(), now: 0.0, pushed: 0, waiting: 0, running: 0 }
    }
}

impl<J> FairQueue<J> {
    /// Let a job wait.
    pub fn push(&mut self, share: Share, order: Order, job: J) {
        let now = self.now;
        let backlog = self.clients.entry(share.client).or_insert_with(|| Backlog {
            jobs: BTreeMap::new(),
            used: now,
            running: 0,
        });
        if backlog.jobs.is_empty() && backlog.running == 0 {
            backlog.used = backlog.used.max(now);
        }
        backlog.jobs.insert((order, self.pushed), job);
        self.pushed += 1;
        self.waiting += 1;
    }

    /// Take the next job. What it took must be told with [`FairQueue::charge`].
    pub fn pop(&mut self) -> Option<J> {
        let number = |b: &Backlog<J>| b.jobs.first_key_value().map(|((_, number), _)| *number);
        let first = self
            .clients
            .values_mut()
            .filter(|b| !b.jobs.is_empty())
            .min_by(|a, b| a.used.total_cmp(&b.used).then_with(|| number(a).cmp(&number(b))))?;
        let (_, job) = first.jobs.pop_first()?;
        self.now = first.used;
        first.running += 1;
        self.waiting -= 1;
        self.running += 1;
        Some(job)
    }

    /// A job that was taken has ended after `seconds`.
    pub fn charge(&mut self, share: Share, seconds: f64) {
        if let Some(backlog) = self.clients.get_mut(&share.client) {
            backlog.used += seconds / share.weight;
            backlog.running -= 1;
            self.running -= 1;
        }
        // Whoever has nothing here and is not ahead is as good as new.
        let now = self.now;
        if self.running == 0 && self.waiting == 0 {
            self.clients.clear();
        } else {
            self.clients.retain(|_, b| !b.jobs.is_empty() || b.running > 0 || b.used > now);
        }
    }

    /// Take out the jobs for which `over` holds.
    pub fn remove(&mut self, over: impl Fn(&J) -> bool) -> Vec<J> {
        let mut removed = Vec::new();
        for backlog in self.clients.values_mut() {
            removed.extend(backlog.jobs.extract_if(.., |_, job| over(job)).map(|(_, job)| job));
        }
        self.waiting -= removed.len();
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::{FairQueue, Order, Share};
    use proptest::prelude::*;

    const ORDER: Order = (0, 0, 0);

    fn share(client: u64) -> Share {
        Share { client, weight: 1.0 }
    }

    /// Let every job take a second; gives the clients in the order in which they ran.
    fn drain(queue: &mut FairQueue<Share>) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some(job) = queue.pop() {
            queue.charge(job, 1.0);
            order.push(job.client);
        }
        order
    }

    #[test]
    fn a_newcomer_is_next_and_then_takes_turns() {
        let mut queue = FairQueue::default();
        (0..8).for_each(|_| queue.push(share(1), ORDER, share(1)));
        let running = queue.pop().unwrap();
        (0..3).for_each(|_| queue.push(share(2), ORDER, share(2)));
        queue.charge(running, 1.0);
        assert_eq!(drain(&mut queue), [2, 1, 2, 1, 2, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn the_earliest_item_goes_first() {
        let mut queue = FairQueue::default();
        for order in [(1, 0, 0), (0, 1, 0), (0, 0, 5), (0, 0, 4)] {
            queue.push(share(1), order, order);
        }
        let order: Vec<Order> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(0, 0, 4), (0, 0, 5), (0, 1, 0), (1, 0, 0)]);
    }

    #[test]
    fn being_away_gains_nothing() {
        let mut queue = FairQueue::default();
        (0..100).for_each(|_| queue.push(share(1), ORDER, share(1)));
        for _ in 0..50 {
            let job = queue.pop().unwrap();
            queue.charge(job, 1.0);
        }
        (0..50).for_each(|_| queue.push(share(2), ORDER, share(2)));
        let order = drain(&mut queue);
        let early = order[..20].iter().filter(|&&c| c == 2).count();
        assert!((9..=11).contains(&early), "{order:?}");
    }

    #[test]
    fn weights_are_parts() {
        let mut queue = FairQueue::default();
        let heavy = Share { client: 2, weight: 3.0 };
        (0..40).for_each(|_| queue.push(share(1), ORDER, share(1)));
        (0..40).for_each(|_| queue.push(heavy, ORDER, heavy));
        let heavies = drain(&mut queue)[..40].iter().filter(|&&c| c == 2).count();
        assert!((29..=31).contains(&heavies), "{heavies}");
    }

    #[test]
    fn what_is_removed_is_gone() {
        let mut queue = FairQueue::default();
        (0..6).for_each(|i| queue.push(share(i % 2), ORDER, share(i % 2)));
        assert_eq!(queue.remove(|job| job.client == 0).len(), 3);
        assert_eq!(drain(&mut queue), [1, 1, 1]);
    }

    proptest! {
        /// While two clients wait, what they got differs by no more than the longest job of each.
        #[test]
        fn shares_are_equal_to_a_job(costs in prop::collection::vec((0u64..4, 1u32..100), 1..200)) {
            let mut queue = FairQueue::default();
            let longest = costs.iter().map(|c| f64::from(c.1)).fold(0.0, f64::max);
            costs.iter().for_each(|&(c, cost)| queue.push(share(c), ORDER, (c, f64::from(cost))));
            let mut left = [0u64, 1, 2, 3].map(|c| costs.iter().filter(|x| x.0 == c).count());
            let mut got = [0.0f64; 4];
            while let Some((client, cost)) = queue.pop() {
                queue.charge(share(client), cost);
                left[client as usize] -= 1;
                got[client as usize] += cost;
                for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
                    prop_assert!(left[a] == 0 || left[b] == 0 || (got[a] - got[b]).abs() <= 2.0 * longest);
                }
            }
            prop_assert!(left == [0; 4]);
        }
    }
}
