//! Where an outline lies on a mask, and how well.

use super::{
    Shape,
    mask::{Mask, Region},
};

/// An outline placed on a picture; lengths in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fit {
    pub shape: Shape,
    pub centre: [f32; 2],
    pub radius: f32,
    /// Pixels in both the outline and the mask over pixels in either.
    pub overlap: f32,
}

/// Smallest and largest radius that is tried.
pub(super) type Radii = [f32; 2];

/// Place `shape` so that it overlaps the mask best, starting from the region of the mask's largest part: the centre and the radius
/// are moved by ever smaller steps as long as the overlap grows.
pub(super) fn fit(mask: &Mask, part: Region, shape: Shape, radii: Radii) -> Fit {
    let (width, height) = ((part.right - part.left) as f32, (part.bottom - part.top) as f32);
    let centre = [part.left as f32 + width / 2.0, part.top as f32 + height / 2.0];
    let radius = ((width + height) / 4.0 / shape.half_extent()).clamp(radii[0], radii[1]);
    let members = mask.count();
    let mut best = overlap(mask, members, Fit { shape, centre, radius, overlap: 0.0 });
    let mut step = radii[1] / 20.0;
    while step > 0.2 {
        let [x, y] = best.centre;
        let moves = [
            ([x - step, y], 0.0),
            ([x + step, y], 0.0),
            ([x, y - step], 0.0),
            ([x, y + step], 0.0),
            ([x, y], -step),
            ([x, y], step),
        ];
        let tries = moves.map(|(centre, grow)| {
            overlap(
                mask,
                members,
                Fit { centre, radius: (best.radius + grow).clamp(radii[0], radii[1]), ..best },
            )
        });
        match tries.into_iter().max_by(|a, b| a.overlap.total_cmp(&b.overlap)) {
            Some(better) if better.overlap > best.overlap => best = better,
            _ => step /= 2.0,
        }
    }
    best
}

fn overlap(mask: &Mask, members: usize, fit: Fit) -> Fit {
    let reach = fit.radius * fit.shape.half_extent() + 1.0;
    let range = |centre: f32, end: usize| {
        ((centre - reach).max(0.0) as usize).min(end)
            ..((centre + reach).max(0.0) as usize + 1).min(end)
    };
    let (mut inside, mut both) = (0usize, 0usize);
    for y in range(fit.centre[1], mask.height) {
        for x in range(fit.centre[0], mask.width) {
            let (dx, dy) = (x as f32 + 0.5 - fit.centre[0], y as f32 + 0.5 - fit.centre[1]);
            if fit.shape.distance(dx, dy, fit.radius) <= 0.0 {
                inside += 1;
                both += usize::from(mask.get(x, y));
            }
        }
    }
    let either = inside + members - both;
    Fit { overlap: if either == 0 { 0.0 } else { both as f32 / either as f32 }, ..fit }
}
