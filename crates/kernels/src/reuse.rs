//! Memory of outputs that nobody holds any longer, kept for the next ones: fresh pages cost about as much as an element-wise
//! operator.

use bytemuck::zeroed_vec;
use bytes::Bytes;
use half::f16;
use std::sync::{Mutex, PoisonError};

/// Elements below which the allocator reuses memory itself.
const SMALL: usize = 1 << 15;
/// Elements that are kept at most, 128 MiB.
const KEPT: usize = 1 << 26;

static SPARE: Mutex<Vec<Vec<f16>>> = Mutex::new(Vec::new());

/// A vector of `count` elements of any value, to be overwritten.
pub(crate) fn buffer(count: usize) -> Vec<f16> {
    if count >= SMALL {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |v: &Vec<f16>| (count..=2 * count).contains(&v.capacity());
        if let Some(at) = spare.iter().rposition(fits) {
            let mut found = spare.swap_remove(at);
            drop(spare);
            found.resize(count, f16::ZERO);
            return found;
        }
    }
    zeroed_vec(count)
}

/// The elements' bytes. Their memory is kept when the last user is gone.
pub(crate) fn shared(values: Vec<f16>) -> Bytes {
    Bytes::from_owner(Reusable(values))
}

struct Reusable(Vec<f16>);

impl AsRef<[u8]> for Reusable {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Drop for Reusable {
    fn drop(&mut self) {
        if self.0.capacity() >= SMALL {
            let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
            spare.push(std::mem::take(&mut self.0));
            // The oldest go first.
            let mut kept = spare.iter().map(Vec::capacity).sum::<usize>();
            while kept > KEPT {
                kept -= spare.remove(0).capacity();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_is_bounded() {
        let bytes = shared(vec![f16::ONE; 3 * SMALL]);
        let copy = bytes.clone();
        drop(bytes);
        assert_eq!(copy.len(), 6 * SMALL);
        drop(copy);
        assert_eq!(buffer(2 * SMALL).len(), 2 * SMALL);
        for _ in 0..20 {
            drop(shared(zeroed_vec(KEPT / 8)));
        }
        drop(shared(zeroed_vec(2 * KEPT)));
        let spare = SPARE.lock().unwrap();
        assert!(spare.iter().map(Vec::capacity).sum::<usize>() <= KEPT);
    }
}
