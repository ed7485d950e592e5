//! What `preprocessor_config.json` says of images.

use super::{Rgb, Views, grid, resample::resized};
use serde::Deserialize;

/// Pillow's number for Lanczos.
const LANCZOS: u64 = 1;
/// transformers' own limit on an image's longest edge.
const LONGEST_EDGE: usize = 4096;

/// How images are brought to a model's views.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageProcessor {
    /// The longest edge that an image is brought to, in pixels.
    longest_edge: usize,
    /// Side of a view, in pixels.
    side: usize,
    split: bool,
    rescale: f64,
    mean: [f32; 3],
    std: [f32; 3],
}

/// A configuration that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorConfigError {
    /// Not JSON, or a key is missing or of another kind.
    #[error("preprocessor_config.json: {0}")]
    Json(#[from] serde_json::Error),
    /// A value that this processor does not do.
    #[error("preprocessor_config.json: {0}")]
    Unsupported(String),
}

#[derive(Deserialize)]
struct Edge {
    longest_edge: usize,
}

#[derive(Deserialize)]
struct File {
    size: Edge,
    max_image_size: Edge,
    resample: Option<u64>,
    #[serde(default = "yes")]
    do_image_splitting: bool,
    #[serde(default = "yes")]
    do_resize: bool,
    #[serde(default = "yes")]
    do_rescale: bool,
    #[serde(default = "yes")]
    do_normalize: bool,
    rescale_factor: Option<f64>,
    image_mean: [f32; 3],
    image_std: [f32; 3],
}

fn yes() -> bool {
    true
}

impl ImageProcessor {
    /// Read a configuration. Sizes, mean and deviation must be there: the defaults of transformers' class are another model's.
    ///
    /// # Errors
    /// Keys that are missing, and values that this processor does not do.
    pub fn from_json(text: &str) -> Result<Self, ProcessorConfigError> {
        let file: File = serde_json::from_str(text)?;
        let (longest_edge, side) = (file.size.longest_edge, file.max_image_size.longest_edge);
        let refuse = |problem: String| Err(ProcessorConfigError::Unsupported(problem));
        if let Some(other) = file.resample.filter(|&r| r != LANCZOS) {
            return refuse(format!("resample {other}; only {LANCZOS} (Lanczos) is known"));
        }
        if !(file.do_resize && file.do_rescale && file.do_normalize) {
            return refuse("do_resize, do_rescale and do_normalize must be true".into());
        }
        if side == 0 || longest_edge == 0 || longest_edge > LONGEST_EDGE {
            return refuse(format!(
                "size.longest_edge {longest_edge} and max_image_size.longest_edge {side}; they must be from 1 to {LONGEST_EDGE}"
            ));
        }
        if file.image_std.contains(&0.0) {
            return refuse("image_std has a 0".into());
        }
        Ok(ImageProcessor {
            longest_edge,
            side,
            split: file.do_image_splitting,
            rescale: file.rescale_factor.unwrap_or(1.0 / 255.0),
            mean: file.image_mean,
            std: file.image_std,
        })
    }

    /// The same with grids of at most `edge` views a side: fewer views take less time and show less.
    ///
    /// # Errors
    /// 0, or more than the longest edge that transformers takes.
    pub fn with_grid(self, edge: usize) -> Result<Self, ProcessorConfigError> {
        let longest_edge = edge.saturating_mul(self.side);
        if longest_edge == 0 || longest_edge > LONGEST_EDGE {
            let most = LONGEST_EDGE / self.side;
            let problem = format!("a grid of {edge} views a side; it must be from 1 to {most}");
            return Err(ProcessorConfigError::Unsupported(problem));
        }
        Ok(ImageProcessor { longest_edge, ..self })
    }

    /// Side of a view, in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// The views of an image. It is brought to the longest edge (small ones grow), then to multiples of a view's side, and cut; the last view is all of
    /// it. An image that fits one view is one view.
    pub fn views(&self, image: &Rgb) -> Views {
        let side = self.side;
        let [width, height] = grid::at_longest_edge([image.width, image.height], self.longest_edge);
        let image = resized(image, width, height);
        if !self.split {
            return Views::new(vec![resized(&image, side, side)], [0, 0], self.table());
        }
        let [width, height] = grid::at_multiples([width, height], side);
        let image = resized(&image, width, height);
        let (rows, columns) = (height / side, width / side);
        if (rows, columns) == (1, 1) {
            return Views::new(vec![image], [0, 0], self.table());
        }
        let tiles = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let mut views: Vec<Rgb> =
            tiles.map(|(row, column)| tile(&image, row, column, side)).collect();
        views.push(resized(&image, side, side));
        Views::new(views, [rows, columns], self.table())
    }

    /// What each byte becomes in each channel.
    fn table(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|channel| {
            std::array::from_fn(|byte| {
                let scaled = (byte as f64 * self.rescale) as f32;
                (scaled - self.mean[channel]) / self.std[channel]
            })
        })
    }
}

fn tile(image: &Rgb, row: usize, column: usize, side: usize) -> Rgb {
    let rows = image.bytes.chunks_exact(image.width * 3).skip(row * side).take(side);
    let bytes = rows.flat_map(|r| &r[column * side * 3..][..side * 3]).copied().collect();
    Rgb { width: side, height: side, bytes }
}
