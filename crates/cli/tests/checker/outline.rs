//! The outlines the tiny model was trained on, as signed distances (`draw` in tools/train_tiny_lcm.py).

use super::{Colour, SIDE, Scene, Shape};
use rockshard_diffusion::Picture;

impl Shape {
    /// Distance in pixels from a point to the outline of radius `r`, negative inside; `dx`, `dy` are counted from the centre, `dy`
    /// downwards.
    pub fn distance(self, dx: f32, dy: f32, r: f32) -> f32 {
        let (ax, ay) = (dx.abs(), dy.abs());
        let length = || (dx * dx + dy * dy).sqrt();
        match self {
            Shape::Circle => length() - r,
            Shape::Ring => (length() - 0.76 * r).abs() - 0.24 * r,
            Shape::Square => ax.max(ay) - 0.86 * r,
            Shape::Diamond => (ax + ay - 1.1 * r) / 2f32.sqrt(),
            Shape::Cross => (ax - r).max(ay - 0.3 * r).min((ay - r).max(ax - 0.3 * r)),
            Shape::Triangle => ((ax * 2.0 - dy - 0.9 * r) / 5f32.sqrt()).max(dy - 0.9 * r),
        }
    }

    /// Half the extent of the outline of radius 1, equal in both directions.
    pub fn half_extent(self) -> f32 {
        match self {
            Shape::Circle | Shape::Ring | Shape::Cross => 1.0,
            Shape::Square => 0.86,
            Shape::Diamond => 1.1,
            Shape::Triangle => 0.9,
        }
    }
}

/// The ideal picture of a scene, [`SIDE`] pixels wide and high, antialiased: its centre moved by `offset`, its radius multiplied by
/// `factor` (training used offsets within 2 pixels and factors within 4 %).
pub fn draw(scene: &Scene, offset: [f32; 2], factor: f32) -> Picture {
    let [cx, cy] = scene.position.centre();
    let (cx, cy, r) = (cx + offset[0], cy + offset[1], scene.size.radius() * factor);
    let [fore, back] = [scene.colour, scene.background].map(Colour::rgb);
    let mut rgb = Vec::with_capacity(SIDE * SIDE * 3);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let cover = (0.5 - scene.shape.distance(x as f32 + 0.5 - cx, y as f32 + 0.5 - cy, r))
                .clamp(0.0, 1.0);
            let mix = |c: usize| {
                (f32::from(fore[c]) * cover + f32::from(back[c]) * (1.0 - cover)).round_ties_even()
                    as u8
            };
            rgb.extend([mix(0), mix(1), mix(2)]);
        }
    }
    Picture { width: SIDE as u32, height: SIDE as u32, rgb, parameters: None }
}
