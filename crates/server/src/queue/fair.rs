//! Start-time fair queueing (Goyal, Vin, Cheng 1996) of jobs: each client gets the same share of the work, by cost over weight, however much it asks for at once.

use std::cmp::Ordering::Equal;
use std::collections::{HashMap, VecDeque};

/// Waiting items of several clients.
pub struct FairQueue<T> {
    clients: HashMap<String, Line<T>>,
    /// The start tag of what was taken last.
    now: f64,
    entered: u64,
    count: usize,
}

struct Line<T> {
    items: VecDeque<Entry<T>>,
    /// Finish tag of the last item.
    finish: f64,
}

/// An item that waits.
pub struct Entry<T> {
    /// The item.
    pub item: T,
    /// What it costs.
    pub cost: f64,
    weight: f64,
    start: f64,
    number: u64,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        FairQueue { clients: HashMap::new(), now: 0.0, entered: 0, count: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Add an item of a client, whose share is as large as `weight`.
    pub fn push(&mut self, client: &str, item: T, cost: f64, weight: f64) {
        let now = self.now;
        if self.clients.len() > 1024 {
            // Clients that went away long ago.
            self.clients.retain(|_, line| !line.items.is_empty() || line.finish > now);
        }
        let line = self.clients.entry(client.to_owned());
        let line = line.or_insert_with(|| Line { items: VecDeque::new(), finish: 0.0 });
        let start = line.finish.max(self.now);
        line.finish = start + cost / weight;
        line.items.push_back(Entry { item, cost, weight, start, number: self.entered });
        self.entered += 1;
        self.count += 1;
    }

    /// Take the item that is next among those for which `may` holds: the first of the client that had least.
    pub fn take(&mut self, may: impl Fn(&T) -> bool) -> Option<(String, Entry<T>)> {
        let heads = self.clients.iter().filter_map(|(client, line)| {
            let at = line.items.iter().position(|entry| may(&entry.item))?;
            let entry = &line.items[at];
            Some((entry.start, entry.number, client.clone(), at))
        });
        let (start, _, client, at) =
            heads.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
        let entry = self.clients.get_mut(&client)?.items.remove(at)?;
        self.now = self.now.max(start);
        self.count -= 1;
        Some((client, entry))
    }

    /// Take out items for which `gone` holds; what they would have cost is given back to their clients.
    pub fn remove(&mut self, gone: impl Fn(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for line in self.clients.values_mut().filter(|line| !line.items.is_empty()) {
            let before = removed.len();
            let mut tag = line.items.front().map_or(0.0, |first| first.start);
            for mut entry in std::mem::take(&mut line.items) {
                if gone(&entry.item) {
                    removed.push(entry.item);
                } else {
                    entry.start = tag;
                    tag += entry.cost / entry.weight;
                    line.items.push_back(entry);
                }
            }
            if removed.len() > before {
                line.finish = tag;
            }
        }
        let now = self.now;
        self.clients.retain(|_, line| !line.items.is_empty() || line.finish > now);
        self.count -= removed.len();
        removed
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Items of a client that wait.
    pub fn len_of(&self, client: &str) -> usize {
        self.clients.get(client).map_or(0, |line| line.items.len())
    }

    /// What all of them cost.
    pub fn cost(&self) -> f64 {
        self.clients.values().flat_map(|line| &line.items).map(|entry| entry.cost).sum()
    }

    /// What goes before the first item for which `is` holds, and what each costs.
    pub fn ahead(&self, is: impl Fn(&T) -> bool) -> Option<Vec<(&T, f64)>> {
        let all = || self.clients.values().flat_map(|line| &line.items);
        let key = |entry: &&Entry<T>| (entry.start, entry.number);
        let sooner = |a: &&Entry<T>, b: &&Entry<T>| key(a).partial_cmp(&key(b)).unwrap_or(Equal);
        let own = all().filter(|entry| is(&entry.item)).min_by(sooner)?;
        let before = all().filter(|entry| key(entry) < key(&own));
        Some(before.map(|entry| (&entry.item, entry.cost)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients that have so many requests each and ask again as soon as one is served, two of all at a time; gives what each has had when `total` is spent.
    fn shares(costs: &[(f64, f64)], requests: usize, total: f64) -> Vec<f64> {
        let mut queue = FairQueue::default();
        let mut had = vec![0.0; costs.len()];
        for (client, (cost, weight)) in costs.iter().enumerate() {
            for _ in 0..requests {
                queue.push(&client.to_string(), client, *cost, *weight);
            }
        }
        let mut serving = VecDeque::new();
        while had.iter().sum::<f64>() < total {
            serving.extend(queue.take(|_| true));
            if serving.len() == 2 || queue.is_empty() {
                let (name, Entry { item, cost, .. }) = serving.pop_front().unwrap();
                had[item] += cost;
                queue.push(&name, item, cost, costs[item].1);
            }
        }
        had
    }

    #[test]
    fn clients_get_equal_shares_whatever_they_ask_at_once() {
        let costs: Vec<(f64, f64)> =
            (0..16).map(|i| (if i % 2 == 0 { 1.0 } else { 8.0 }, 1.0)).collect();
        let had = shares(&costs, 1, 16_000.0);
        for share in had {
            assert!((share - 1000.0).abs() <= 16.0, "{share}");
        }
    }

    #[test]
    fn weights_make_shares() {
        let had = shares(&[(1.0, 1.0), (1.0, 4.0), (1.0, 0.25)], 8, 5250.0);
        for (share, expected) in had.iter().zip([1000.0, 4000.0, 250.0]) {
            assert!((share - expected).abs() <= expected * 0.05, "{had:?}");
        }
    }

    #[test]
    fn who_was_away_gets_nothing_for_it() {
        let mut queue = FairQueue::default();
        for _ in 0..100 {
            queue.push("a", 'a', 1.0, 1.0);
            queue.take(|_| true);
        }
        for _ in 0..10 {
            queue.push("a", 'a', 1.0, 1.0);
            queue.push("b", 'b', 1.0, 1.0);
        }
        let order: String =
            (0..10).filter_map(|_| queue.take(|_| true)).map(|(_, e)| e.item).collect();
        assert_eq!(order.matches('a').count(), 5, "{order}");
    }

    #[test]
    fn what_is_removed_costs_nothing() {
        let mut queue = FairQueue::default();
        for item in 0..40 {
            queue.push("a", item, 1.0, 1.0);
        }
        assert_eq!(queue.remove(|_| true).len(), 40);
        for item in 100..103 {
            queue.push("b", item, 1.0, 1.0);
        }
        queue.push("a", 50, 1.0, 1.0);
        let order: Vec<i32> =
            (0..2).filter_map(|_| queue.take(|_| true)).map(|(_, e)| e.item).collect();
        assert_eq!(order, [100, 50]);
    }

    #[test]
    fn what_is_passed_over_waits_and_what_is_removed_does_not() {
        let mut queue = FairQueue::default();
        for item in 1..=4 {
            queue.push("a", item, 2.0, 1.0);
        }
        assert_eq!(queue.ahead(|i| *i == 3), Some(vec![(&1, 2.0), (&2, 2.0)]));
        assert_eq!(queue.take(|i| i % 2 == 0).map(|(_, e)| e.item), Some(2));
        assert_eq!(queue.remove(|i| *i == 3), [3]);
        assert_eq!((queue.len(), queue.len_of("a"), queue.cost()), (2, 2, 4.0));
        assert!(queue.ahead(|i| *i == 3).is_none());
        assert!(queue.take(|i| *i == 3).is_none());
    }
}
