//! Row-major walks over an output whose operands lie at strides, with as few and as long runs as the strides allow.

/// Element strides of a row-major tensor.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        out[i - 1] = out[i] * shape[i];
    }
    out
}

/// Element strides of a row-major tensor read as the larger shape it broadcasts to: 0 along repeated axes.
pub(crate) fn broadcast_strides(shape: &[usize], target: &[usize]) -> Vec<usize> {
    let own = strides(shape);
    let lead = target.len() - shape.len();
    (0..target.len())
        .map(|i| if i < lead || shape[i - lead] != target[i] { 0 } else { own[i - lead] })
        .collect()
}

/// A walk with `N` operands.
pub(crate) struct Walk<const N: usize> {
    outer: Vec<(usize, [usize; N])>,
    /// Elements of a whole run.
    pub(crate) run: usize,
    /// Each operand's stride within a run.
    pub(crate) step: [usize; N],
}

impl<const N: usize> Walk<N> {
    /// A walk over `shape`; neighbouring axes that every operand crosses evenly become one.
    pub(crate) fn new(shape: &[usize], operands: [Vec<usize>; N]) -> Self {
        let mut axes: Vec<(usize, [usize; N])> = Vec::with_capacity(shape.len());
        for (i, &extent) in shape.iter().enumerate().filter(|&(_, &extent)| extent != 1) {
            let step: [usize; N] = std::array::from_fn(|k| operands[k][i]);
            match axes.last_mut() {
                Some((count, outer)) if (0..N).all(|k| outer[k] == step[k] * extent) => {
                    *count *= extent;
                    *outer = step;
                }
                _ => axes.push((extent, step)),
            }
        }
        let (run, step) = axes.pop().unwrap_or((1, [1; N]));
        Walk { outer: axes, run, step }
    }

    /// Visit `count` output elements from position `start`: `visit(done, n, at)` stands for `n` elements, the first
    /// being number `done` of this visit, with operand `k` at `at[k]`, `at[k] + step[k]`, ...
    pub(crate) fn visit(
        &self,
        start: usize,
        count: usize,
        mut visit: impl FnMut(usize, usize, [usize; N]),
    ) {
        let mut done = 0;
        while done < count {
            let position = start + done;
            let (mut row, within) = (position / self.run, position % self.run);
            let mut at: [usize; N] = std::array::from_fn(|k| within * self.step[k]);
            for (extent, step) in self.outer.iter().rev() {
                let index = row % extent;
                row /= extent;
                for k in 0..N {
                    at[k] += index * step[k];
                }
            }
            let n = (self.run - within).min(count - done);
            visit(done, n, at);
            done += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_axes_become_one_run() {
        let shape = [2, 1, 3, 4];
        let walk = Walk::new(&shape, [strides(&shape), broadcast_strides(&[3, 4], &shape)]);
        assert_eq!((walk.run, walk.step, walk.outer.len()), (12, [1, 1], 1));
        let mut seen = Vec::new();
        walk.visit(10, 5, |done, n, at| seen.push((done, n, at)));
        assert_eq!(seen, [(0, 2, [10, 10]), (2, 3, [12, 0])]);
    }

    #[test]
    fn a_scalar_is_one_run_of_one() {
        let walk = Walk::new(&[], [strides(&[])]);
        let mut seen = Vec::new();
        walk.visit(0, 1, |done, n, at| seen.push((done, n, at)));
        assert_eq!(seen, [(0, 1, [0])]);
    }
}
