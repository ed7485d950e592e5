//! The views of an image, and what stands for them in a prompt.

use super::Rgb;
use rockshard_tensor::Tensor;
use std::fmt::Write;

/// Words of Idefics3's vocabulary.
const AROUND: &str = "<fake_token_around_image>";
const GLOBAL: &str = "<global-img>";
const IMAGE: &str = "<image>";

/// The views of an image: the tiles of its grid row by row, and last all of it.
#[derive(Clone, Debug)]
pub struct Views {
    images: Vec<Rgb>,
    grid: [usize; 2],
    table: Box<[[f32; 256]; 3]>,
}

impl Views {
    pub(super) fn new(images: Vec<Rgb>, grid: [usize; 2], table: [[f32; 256]; 3]) -> Self {
        Views { images, grid, table: Box::new(table) }
    }

    /// Rows and columns of the grid; 0 and 0 for an image that is one view.
    pub fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// Number of views.
    pub fn count(&self) -> usize {
        self.images.len()
    }

    /// The views' pixels.
    pub fn images(&self) -> &[Rgb] {
        &self.images
    }

    /// Keep what stands for the views in a prompt, and free their pixels.
    pub fn forget_pixels(&mut self) {
        self.images.iter_mut().for_each(|image| image.bytes = Vec::new());
    }

    /// What the vision encoder takes for a view: `[1, 3, side, side]`, rescaled and normalised; `None` where there are no pixels.
    pub fn pixel_values(&self, view: usize) -> Option<Tensor> {
        let image = self.images.get(view).filter(|image| !image.bytes.is_empty());
        let Rgb { width, height, bytes } = image?;
        let plane = |channel: usize| {
            let values = bytes.iter().skip(channel).step_by(3);
            values.map(move |&byte| self.table[channel][usize::from(byte)])
        };
        let values = (0..3).flat_map(plane).collect();
        Some(Tensor::from_f32([1, 3, *height, *width], values))
    }

    /// What stands for the image in a prompt, with `tokens` places a view (64 for SmolVLM): transformers' `get_image_prompt_string`.
    pub fn placeholder(&self, tokens: usize) -> String {
        let [rows, columns] = self.grid;
        let places = IMAGE.repeat(tokens);
        let mut text = String::new();
        for row in 1..=rows {
            for column in 1..=columns {
                let _ = write!(text, "{AROUND}<row_{row}_col_{column}>{places}");
            }
            text.push('\n');
        }
        if rows > 0 {
            text.push('\n');
        }
        text + AROUND + GLOBAL + &places + AROUND
    }
}
