//! Decoding a latent in overlapping tiles whose pictures are blended: the decoder need not fit the whole picture.
//!
//! As in diffusers' `AutoencoderKL.tiled_decode`, neighbours overlap by at least a quarter of a tile, and weights go linearly from one
//! to the other across the overlap. Two things differ: all tiles have the decoder's size, so they are spread evenly instead of being
//! cut off at the edge; and corners are blended along rows first, then between rows.

/// Least part of a tile that overlaps the next one: one in this many.
const OVERLAP: usize = 4;

/// How one direction is cut: starts of the tiles, in latent values.
fn starts(length: usize, tile: usize) -> Vec<usize> {
    let step = (tile - tile / OVERLAP).max(1);
    let gaps = (length - tile).div_ceil(step);
    (0..=gaps).map(|i| i * (length - tile) / gaps.max(1)).collect()
}

/// Tiles of one picture.
pub(crate) struct Tiles {
    /// Height and width of a tile and of the latent.
    tile: [usize; 2],
    latent: [usize; 2],
    /// Pixels of a latent value.
    scale: usize,
    rows: Vec<usize>,
    columns: Vec<usize>,
}

impl Tiles {
    /// Cover a latent with tiles, which must not be larger; `scale` is the pixels of a latent value in each direction.
    pub fn new(tile: [usize; 2], latent: [usize; 2], scale: usize) -> Self {
        let (rows, columns) = (starts(latent[0], tile[0]), starts(latent[1], tile[1]));
        Tiles { tile, latent, scale, rows, columns }
    }

    pub fn count(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// The tiles of a latent of any number of channels, row by row.
    pub fn cut(&self, latent: &[f32]) -> Vec<Vec<f32>> {
        let [height, width] = self.latent;
        let places = self.rows.iter().flat_map(|&y| self.columns.iter().map(move |&x| [y, x]));
        let cut = |[y, x]: [usize; 2]| {
            let lines = latent
                .chunks_exact(height * width)
                .flat_map(|plane| plane.chunks_exact(width).skip(y).take(self.tile[0]));
            lines.flat_map(|line| &line[x..x + self.tile[1]]).copied().collect()
        };
        places.map(cut).collect()
    }

    /// The picture of decoded tiles, in the order of [`Tiles::cut`]: as many planes as they have.
    pub fn join(&self, decoded: &[Vec<f32>]) -> Vec<f32> {
        let [tile_height, tile_width] = self.tile.map(|n| n * self.scale);
        let [height, width] = self.latent.map(|n| n * self.scale);
        let planes = decoded.first().map_or(0, |t| t.len() / (tile_height * tile_width));
        let mut picture = vec![0.0; planes * height * width];
        let mut above = 0;
        for (row, &y) in decoded.chunks(self.columns.len()).zip(&self.rows) {
            let y = y * self.scale;
            for plane in 0..planes {
                for line in 0..tile_height {
                    let strip = self.line(
                        row,
                        (plane * tile_height + line) * tile_width,
                        tile_width,
                        width,
                    );
                    let target = &mut picture[(plane * height + y + line) * width..][..width];
                    blend(target, &strip, weight(line, above.max(y) - y));
                }
            }
            above = y + tile_height;
        }
        picture
    }

    /// One line across a row of tiles; it starts at `offset` in each.
    fn line(&self, row: &[Vec<f32>], offset: usize, tile_width: usize, width: usize) -> Vec<f32> {
        let mut line = vec![0.0; width];
        let mut left = 0;
        for (tile, &x) in row.iter().zip(&self.columns) {
            let x = x * self.scale;
            for (i, &value) in tile[offset..offset + tile_width].iter().enumerate() {
                blend(&mut line[x + i..=x + i], &[value], weight(i, left.max(x) - x));
            }
            left = x + tile_width;
        }
        line
    }
}

/// Weight of the later of two tiles at a place in an overlap; 1 beyond it.
fn weight(place: usize, overlap: usize) -> f32 {
    if place >= overlap { 1.0 } else { place as f32 / overlap as f32 }
}

fn blend(earlier: &mut [f32], later: &[f32], weight: f32) {
    for (a, &b) in earlier.iter_mut().zip(later) {
        *a = if weight == 1.0 { b } else { *a + (b - *a) * weight };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_everything_and_overlap_by_a_quarter() {
        for (length, tile) in
            [(8, 8), (9, 8), (14, 8), (15, 8), (64, 8), (100, 64), (3, 1), (128, 5)]
        {
            let starts = starts(length, tile);
            assert_eq!(
                (starts[0], starts[starts.len() - 1] + tile),
                (0, length),
                "{length} {tile}"
            );
            assert!(
                starts.windows(2).all(|w| w[1] > w[0] && w[0] + tile >= w[1] + tile / OVERLAP),
                "{length} {tile}: {starts:?}"
            );
        }
        assert_eq!(starts(8, 8), [0]);
        assert_eq!(starts(20, 8), [0, 6, 12]);
    }

    #[test]
    fn seams_go_linearly_from_one_tile_to_the_next() {
        let tiles = Tiles::new([4, 4], [4, 7], 2);
        assert_eq!((tiles.columns.as_slice(), tiles.count()), ([0, 3].as_slice(), 2));
        let joined = tiles.join(&[vec![0.0; 64], vec![1.0; 64]]);
        let expected: Vec<f32> = [[0.0; 6].as_slice(), &[0.0, 0.5], &[1.0; 6]].concat();
        assert!(joined.chunks(14).all(|line| line == expected), "{joined:?}");
    }

    #[test]
    fn a_picture_that_is_its_latent_comes_back() {
        let latent: Vec<f32> = (0..2 * 9 * 13).map(|i| (i as f32 * 0.7).sin()).collect();
        let tiles = Tiles::new([4, 5], [9, 13], 1);
        assert_eq!(tiles.join(&tiles.cut(&latent)), latent);
    }
}
