//! Which pixels of a picture belong to the figure.

/// A set of pixels of a picture.
#[derive(Clone)]
pub(super) struct Mask {
    pub width: usize,
    pub height: usize,
    bits: Vec<bool>,
}

/// Half-open pixel ranges of a part of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Region {
    pub left: usize,
    pub top: usize,
    pub right: usize,
    pub bottom: usize,
}

impl Mask {
    pub fn new(width: usize, bits: Vec<bool>) -> Self {
        Mask { width, height: bits.len() / width.max(1), bits }
    }

    pub fn get(&self, x: usize, y: usize) -> bool {
        self.bits[y * self.width + x]
    }

    pub fn count(&self) -> usize {
        self.bits.iter().filter(|&&b| b).count()
    }

    /// Indices of its pixels in row order.
    pub fn pixels(&self) -> impl Iterator<Item = usize> {
        self.bits.iter().enumerate().filter(|(_, b)| **b).map(|(i, _)| i)
    }

    /// The pixels that have at least `least` members among themselves and their eight neighbours.
    pub fn with_neighbours(&self, least: usize) -> Mask {
        let near = |n: usize, end: usize| n.saturating_sub(1)..(n + 2).min(end);
        let around = |x: usize, y: usize| {
            near(y, self.height)
                .flat_map(|v| near(x, self.width).map(move |u| (u, v)))
                .filter(|&(u, v)| self.get(u, v))
                .count()
        };
        let bits =
            (0..self.bits.len()).map(|i| around(i % self.width, i / self.width) >= least).collect();
        Mask { bits, ..*self }
    }

    /// The smallest region around the largest connected part; `None` for an empty mask.
    pub fn largest_part(&self) -> Option<Region> {
        let mut seen = vec![false; self.bits.len()];
        let mut best = (0, None);
        for start in self.pixels() {
            if seen[start] {
                continue;
            }
            let (size, region) = self.flood(start, &mut seen);
            if size > best.0 {
                best = (size, Some(region));
            }
        }
        best.1
    }

    fn flood(&self, start: usize, seen: &mut [bool]) -> (usize, Region) {
        let mut region = Region { left: usize::MAX, top: usize::MAX, right: 0, bottom: 0 };
        let (mut size, mut stack) = (0, vec![start]);
        seen[start] = true;
        while let Some(i) = stack.pop() {
            let (x, y) = (i % self.width, i / self.width);
            size += 1;
            region = Region {
                left: region.left.min(x),
                top: region.top.min(y),
                right: region.right.max(x + 1),
                bottom: region.bottom.max(y + 1),
            };
            let steps = [
                (x > 0).then(|| i - 1),
                (x + 1 < self.width).then(|| i + 1),
                (y > 0).then(|| i - self.width),
                (y + 1 < self.height).then(|| i + self.width),
            ];
            for next in steps.into_iter().flatten() {
                if self.bits[next] && !seen[next] {
                    seen[next] = true;
                    stack.push(next);
                }
            }
        }
        (size, region)
    }
}
