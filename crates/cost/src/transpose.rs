//! Which transposes the NPU does itself (docs/rk3588.md 2.5, after the vendor's operator list, float16).

use crate::Rk3588;

impl Rk3588 {
    /// Whether the NPU transposes a tensor of this shape; otherwise the runtime does it on the CPU.
    ///
    /// Four axes of a graph input (`given`) are taken as they stand. Elsewhere the compiler places axes of extent 1 as it
    /// likes: it keeps the head transposes of a U-Net on the NPU, but not that of an input in `[1, heads, tokens, d]`
    /// (docs/toolkit.md 4).
    pub fn transposes(&self, shape: &[usize], perm: &[usize], given: bool) -> bool {
        if moves_nothing(shape, perm) {
            return true;
        }
        if let (&[n, c, h, w], true) = (shape, given) {
            return self.table([n, c, h, w], perm);
        }
        // Without axes of extent 1.
        let kept: Vec<usize> = (0..shape.len()).filter(|&i| shape[i] != 1).collect();
        let small: Vec<usize> = kept.iter().map(|&i| shape[i]).collect();
        let order: Vec<usize> =
            perm.iter().filter_map(|p| kept.iter().position(|k| k == p)).collect();
        self.placed(&small, &order)
    }

    /// Try every way of filling up to four axes.
    fn placed(&self, shape: &[usize], perm: &[usize]) -> bool {
        match shape.len() {
            4 => self.table([shape[0], shape[1], shape[2], shape[3]], perm),
            5.. => false,
            n => (0..=n).any(|at| {
                let mut wider = shape.to_vec();
                wider.insert(at, 1);
                let moved: Vec<usize> =
                    perm.iter().map(|&p| if p >= at { p + 1 } else { p }).collect();
                (0..=n).any(|to| {
                    let mut order = moved.clone();
                    order.insert(to, at);
                    self.placed(&wider, &order)
                })
            }),
        }
    }

    fn table(&self, [n, c, h, w]: [usize; 4], perm: &[usize]) -> bool {
        let p = self.transpose_product;
        let even = h % 8 == 0;
        match *perm {
            [0, 1, 2, 3] => true,
            [0, 1, 3, 2] => even && h * w < p / 2,
            [0, 2, 3, 1] => c < p && (h * w) % 8 == 0 && w * c < 8 * p,
            [0, 2, 1, 3] => even && h * w < p / 2 && c * w < p,
            [0, 3, 1, 2] => h * w < p && w < p && h * c < p,
            [0, 3, 2, 1] => even && h * w < p / 2 && c < 8 * p,
            [1, 0, 2, 3] => n < p && h * w < p,
            [2, 0, 1, 3] => n * c * h * w < p,
            [2, 3, 0, 1] => h * w < p && n * c < p,
            _ => false,
        }
    }
}

/// Whether only axes of extent 1 change places.
pub(crate) fn moves_nothing(shape: &[usize], perm: &[usize]) -> bool {
    perm.iter().filter(|&&p| shape.get(p).is_some_and(|&d| d != 1)).is_sorted()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let chip = Rk3588::default();
        let cases: [(&[usize], &[usize], bool, bool); 13] = [
            // toolkit 4: heads and tokens in front cost a transpose on the CPU at the input, and nowhere else.
            (&[1, 8, 4096, 40], &[0, 1, 3, 2], true, false),
            (&[1, 8, 4096, 40], &[0, 1, 3, 2], false, true),
            (&[1, 2304, 8, 40], &[0, 2, 1, 3], false, true),
            (&[1, 8, 64, 40], &[0, 1, 3, 2], true, true),
            (&[1, 8, 63, 40], &[0, 1, 3, 2], true, false),
            (&[1, 320, 64, 64], &[0, 2, 3, 1], true, true),
            (&[1, 8192, 8, 8], &[0, 2, 3, 1], true, false),
            (&[1, 64, 64, 320], &[0, 3, 1, 2], true, false),
            (&[1, 1, 4096, 320], &[0, 1, 2, 3], true, true),
            (&[1, 4096, 1, 320], &[0, 2, 1, 3], true, true),
            (&[1, 1024, 768], &[0, 2, 1], true, true),
            (&[8, 4096, 40, 2], &[3, 2, 1, 0], false, false),
            (&[2, 3, 4, 5, 6], &[4, 3, 2, 1, 0], false, false),
        ];
        for (shape, perm, given, expected) in cases {
            assert_eq!(chip.transposes(shape, perm, given), expected, "{shape:?} {perm:?} {given}");
        }
    }
}
