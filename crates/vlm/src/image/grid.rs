//! Sizes on the way from an image to its views, in the floating point numbers of transformers' `image_processing_pil_idefics3.py`, which truncate.

/// Sides `[width, height]` with the longest at `longest`; the other is made even.
pub(super) fn at_longest_edge([width, height]: [usize; 2], longest: usize) -> [usize; 2] {
    let aspect = width as f64 / height as f64;
    let even = |side: f64| {
        let side = side as usize;
        (side + side % 2).max(1)
    };
    if width >= height {
        [longest, even(longest as f64 / aspect)]
    } else {
        [even(longest as f64 * aspect), longest]
    }
}

/// Sides at the next multiples of a view's side.
pub(super) fn at_multiples([width, height]: [usize; 2], side: usize) -> [usize; 2] {
    let aspect = width as f64 / height as f64;
    let up = |extent: usize| extent.div_ceil(side) * side;
    if width >= height {
        let width = up(width);
        [width, up((width as f64 / aspect) as usize)]
    } else {
        let height = up(height);
        [up((height as f64 * aspect) as usize), height]
    }
}
