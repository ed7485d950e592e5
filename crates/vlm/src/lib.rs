//! Vision-language models of the Idefics3 kind (SmolVLM): what their processor makes of images.
//!
//! An image becomes *views* of one size: the tiles of a grid, row by row, and behind them the whole image. [`ImageProcessor`] makes them as transformers'
//! processor does with Pillow, byte for byte, and [`Views::placeholder`] is what stands for them in a prompt.

mod image;

pub use image::{ImageError, ImageProcessor, ProcessorConfigError, Rgb, Views};
