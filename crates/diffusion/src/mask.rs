//! Where a picture may change.

use crate::{Error, InitialPicture, Picture, PictureError};
use ::image::{GrayImage, imageops};

/// Where a picture may change: a value for each of its pixels, row by row, 0 (it stays) to 255 (it may change).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    width: u32,
    height: u32,
    change: Vec<u8>,
}

impl InitialPicture {
    /// Check that picture and mask have what their sizes take, and the same size.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.picture.check()?;
        let Some(Mask { width, height, .. }) = &self.mask else { return Ok(()) };
        let picture = [self.picture.width, self.picture.height];
        if picture == [*width, *height] {
            return Ok(());
        }
        Err(Error::Mask { mask: [*width, *height], picture })
    }
}

impl Mask {
    /// A mask of `width * height` values, 0 (it stays) to 255 (it may change). `None` for another number of them.
    pub fn new(width: u32, height: u32, change: Vec<u8>) -> Option<Self> {
        let pixels = (width as usize).checked_mul(height as usize)?;
        (pixels > 0 && change.len() == pixels).then_some(Mask { width, height, change })
    }

    /// From a PNG, JPEG or WebP file of at most `most` pixels: what is transparent may change.
    ///
    /// # Errors
    /// As [`Picture::from_bytes`].
    pub fn from_transparency(bytes: &[u8], most: u64) -> Result<Self, PictureError> {
        let image = rockshard_image_file::decode_within(bytes, most)?.into_rgba8();
        let change = image.pixels().map(|pixel| 255 - pixel[3]).collect();
        Ok(Mask { width: image.width(), height: image.height(), change })
    }

    /// From a PNG, JPEG or WebP file of at most `most` pixels: what is white may change, or with `inverted` what is black.
    ///
    /// # Errors
    /// As [`Picture::from_bytes`].
    pub fn from_brightness(bytes: &[u8], most: u64, inverted: bool) -> Result<Self, PictureError> {
        let image = rockshard_image_file::decode_within(bytes, most)?.into_luma8();
        let (width, height) = (image.width(), image.height());
        let change = image.into_raw().into_iter().map(|v| if inverted { 255 - v } else { v });
        Ok(Mask { width, height, change: change.collect() })
    }

    /// Whether nothing may change at all.
    pub fn keeps_all(&self) -> bool {
        self.change.iter().all(|&change| change == 0)
    }

    /// The mask at the size of the pictures that are drawn, each value the mean of what it covers.
    pub fn at_size(&self, width: u32, height: u32) -> Self {
        Mask { width, height, change: self.resized(width, height) }
    }

    /// The mask at another size, each value the mean of what it covers.
    fn resized(&self, width: u32, height: u32) -> Vec<u8> {
        if [width, height] == [self.width, self.height] {
            return self.change.clone();
        }
        let image = GrayImage::from_raw(self.width, self.height, self.change.clone());
        let image = image.unwrap_or_default();
        imageops::resize(&image, width, height, imageops::FilterType::Triangle).into_raw()
    }

    /// How much each value of a latent (channels, height, width) may change, 0 to 1.
    pub(crate) fn of_latent(&self, [channels, height, width]: [usize; 3]) -> Vec<f32> {
        let plane = self.resized(width as u32, height as u32);
        let value = |&v: &u8| f32::from(v) / 255.0;
        (0..channels).flat_map(|_| plane.iter().map(value)).collect()
    }

    /// Put back into a drawn picture what stays of the one that it was made from.
    pub(crate) fn compose(&self, from: &Picture, drawn: &mut Picture) {
        let (width, height) = (drawn.width, drawn.height);
        let change = self.resized(width, height);
        let own = from.resized(width, height).rgb;
        let pixels = drawn.rgb.chunks_exact_mut(3).zip(own.chunks_exact(3)).zip(&change);
        for ((new, own), &change) in pixels {
            for (new, &own) in new.iter_mut().zip(own) {
                let (new_share, own_share) = (u32::from(change), 255 - u32::from(change));
                let sum = u32::from(*new) * new_share + u32::from(own) * own_share;
                *new = ((sum + 127) / 255) as u8;
            }
        }
    }
}
