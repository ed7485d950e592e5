//! From an image file to the values that a vision encoder takes.

mod config;
mod decode;
mod grid;
mod resample;
mod views;

pub use config::{ImageProcessor, ProcessorConfigError};
pub use decode::{ImageError, Rgb};
pub use views::Views;
