//! The deterministic judge of the tiny model's pictures: what figure is there, and is it the one that was asked for?
//!
//! The background is the median colour of the border; the figure is what differs from it by more than half the contrast, which
//! tolerates soft edges; its colour is the median inside; its outline is the one of six that overlaps it best after fitting.
//! Where any of this is in doubt the answer is [`Unknown`], never a guess.
#![allow(dead_code, unused_imports)] // Each test uses some of it.

mod fit;
mod mask;
mod outline;
mod scene;

pub use outline::draw;
pub use scene::{Colour, Position, Scene, Shape, Size};

use mask::Mask;
use rockshard_diffusion::Picture;

/// Side of the pictures the scenes are defined for; other sizes are measured in proportion.
pub const SIDE: usize = 128;

/// Least overlap (intersection over union) of the figure with its outline.
pub const LEAST_OVERLAP: f32 = 0.6;

/// Largest distance of a colour from the palette (the closest two of which are 81 apart).
const COLOUR_TOLERANCE: f32 = 64.0;

/// Least colour distance between figure and background.
const LEAST_CONTRAST: f32 = 40.0;

/// Largest distance of the centre from a place of the grid, in pixels of a picture of [`SIDE`].
const PLACE_TOLERANCE: f32 = 14.0;

/// Radii that are tried, in pixels of a picture of [`SIDE`].
const RADII: [f32; 2] = [11.0, 40.0];

/// What a picture shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Outline of the figure.
    pub shape: Shape,
    /// Its colour.
    pub colour: Colour,
    /// Its size.
    pub size: Size,
    /// Its place.
    pub position: Position,
    /// Colour of the rest.
    pub background: Colour,
    /// Overlap of the figure with the fitted outline, [`LEAST_OVERLAP`] to 1.
    pub confidence: f32,
    /// The next best outline and its overlap.
    pub runner_up: (Shape, f32),
    /// Fitted centre `[x, y]` in pixels of a picture of [`SIDE`].
    pub centre: [f32; 2],
    /// Fitted radius in pixels of a picture of [`SIDE`].
    pub radius: f32,
}

/// Why a picture shows no scene.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unknown {
    /// Too small, or its bytes do not fit its size.
    #[error("not a picture of at least 32x32 pixels")]
    NotAPicture,
    /// The border has no colour of the palette.
    #[error("the background {0:?} is none of the colours")]
    Background([u8; 3]),
    /// Nothing stands out from the background.
    #[error("there is no figure on the {0} background")]
    NoFigure(Colour),
    /// The figure has no colour of the palette, or the background's.
    #[error("the figure's colour {0:?} is none of the colours that stand out")]
    Colour([u8; 3]),
    /// No outline fits.
    #[error("the figure is none of the shapes: the best, {shape}, overlaps it by {overlap:.2}")]
    Shape {
        /// Best outline.
        shape: Shape,
        /// Its overlap.
        overlap: f32,
    },
    /// The figure is not at a place of the grid.
    #[error("the figure's centre ({x:.0}, {y:.0}) is at none of the places")]
    Position {
        /// Horizontal centre in pixels of a picture of [`SIDE`].
        x: f32,
        /// Vertical centre.
        y: f32,
    },
}

impl Description {
    /// Whether the picture shows the scene.
    pub fn matches(&self, expected: &Scene) -> bool {
        self.differences(expected).is_empty()
    }

    /// What is not as in the scene: names of [`Scene`]'s fields.
    pub fn differences(&self, expected: &Scene) -> Vec<&'static str> {
        let checks = [
            ("shape", self.shape == expected.shape),
            ("colour", self.colour == expected.colour),
            ("size", self.size == expected.size),
            ("position", self.position == expected.position),
            ("background", self.background == expected.background),
        ];
        checks.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }
}

impl std::fmt::Display for Description {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "a {} {} {} at the {} of a {} background",
            self.size, self.colour, self.shape, self.position, self.background
        )
    }
}

/// Describe a picture.
///
/// # Errors
/// The picture does not show one figure of the palette, the shapes and the places, clearly.
pub fn describe(picture: &Picture) -> Result<Description, Unknown> {
    let (width, height) = (picture.width as usize, picture.height as usize);
    if width.min(height) < 32 || picture.rgb.len() != width * height * 3 {
        return Err(Unknown::NotAPicture);
    }
    let (pixels, _) = picture.rgb.as_chunks::<3>();
    let ring = width.min(height) / 40;
    let border = |i: usize| {
        let (x, y) = (i % width, i / width);
        x.min(width - 1 - x).min(y).min(height - 1 - y) <= ring
    };
    let back = median((0..pixels.len()).filter(|&i| border(i)).map(|i| pixels[i]));
    let background = nearest(back).ok_or(Unknown::Background(back))?;

    let mask = figure(pixels, width, back).ok_or(Unknown::NoFigure(background))?;
    let part = mask.largest_part().ok_or(Unknown::NoFigure(background))?;
    let interior = mask.with_neighbours(9);
    let inside = if interior.count() > 0 { &interior } else { &mask };
    let fore = median(inside.pixels().map(|i| pixels[i]));
    let colour = nearest(fore).filter(|&c| c != background).ok_or(Unknown::Colour(fore))?;

    let scale = width.min(height) as f32 / SIDE as f32;
    let mut fits: Vec<_> = Shape::ALL
        .iter()
        .map(|&shape| fit::fit(&mask, part, shape, RADII.map(|r| r * scale)))
        .collect();
    fits.sort_by(|a, b| b.overlap.total_cmp(&a.overlap));
    let (best, second) = (fits[0], fits[1]);
    if best.overlap < LEAST_OVERLAP {
        return Err(Unknown::Shape { shape: best.shape, overlap: best.overlap });
    }
    let centre =
        [best.centre[0] * SIDE as f32 / width as f32, best.centre[1] * SIDE as f32 / height as f32];
    let radius = best.radius / scale;
    Ok(Description {
        shape: best.shape,
        colour,
        size: if radius < (Size::Small.radius() + Size::Large.radius()) / 2.0 {
            Size::Small
        } else {
            Size::Large
        },
        position: place(centre)?,
        background,
        confidence: best.overlap,
        runner_up: (second.shape, second.overlap),
        centre,
        radius,
    })
}

/// Pixels farther from the background than half of what its farthest hundredth is; `None` when nothing stands out.
fn figure(pixels: &[[u8; 3]], width: usize, back: [u8; 3]) -> Option<Mask> {
    let distances: Vec<f32> = pixels.iter().map(|&p| distance(p, back)).collect();
    let mut sorted = distances.clone();
    sorted.sort_by(f32::total_cmp);
    let contrast = sorted[sorted.len() - 1 - sorted.len() / 100];
    let mask = Mask::new(width, distances.iter().map(|&d| d > contrast / 2.0).collect())
        .with_neighbours(5);
    (contrast >= LEAST_CONTRAST && mask.count() > 0).then_some(mask)
}

fn place(centre: [f32; 2]) -> Result<Position, Unknown> {
    let away = |p: &Position| {
        let [x, y] = p.centre();
        (x - centre[0]).abs().max((y - centre[1]).abs())
    };
    let nearest = Position::ALL.iter().copied().min_by(|a, b| away(a).total_cmp(&away(b)));
    nearest
        .filter(|p| away(p) <= PLACE_TOLERANCE)
        .ok_or(Unknown::Position { x: centre[0], y: centre[1] })
}

fn distance(a: [u8; 3], b: [u8; 3]) -> f32 {
    let square = |i: usize| (f32::from(a[i]) - f32::from(b[i])).powi(2);
    (square(0) + square(1) + square(2)).sqrt()
}

fn nearest(rgb: [u8; 3]) -> Option<Colour> {
    let away = |c: &Colour| distance(c.rgb(), rgb);
    Colour::ALL
        .iter()
        .copied()
        .min_by(|a, b| away(a).total_cmp(&away(b)))
        .filter(|c| away(c) <= COLOUR_TOLERANCE)
}

/// The median of each channel.
fn median(colours: impl Iterator<Item = [u8; 3]>) -> [u8; 3] {
    let mut channels: [Vec<u8>; 3] = Default::default();
    for colour in colours {
        for (channel, value) in channels.iter_mut().zip(colour) {
            channel.push(value);
        }
    }
    channels.map(|mut values| {
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    })
}

/// What must be right in a picture of a caption.
const JUDGED: [&str; 3] = ["shape", "colour", "background"];

/// Whether a picture shows a scene's shape and colours; says what it shows where it does not.
pub fn is_right(picture: &Picture, scene: &Scene, who: &str) -> bool {
    match describe(picture) {
        Ok(seen) if !seen.differences(scene).iter().any(|d| JUDGED.contains(d)) => return true,
        Ok(seen) => eprintln!("{who}: {}: drew {seen}", scene.caption),
        Err(unknown) => eprintln!("{who}: {}: {unknown}", scene.caption),
    }
    false
}
