//! What was asked of a conversion, as typed and as meant.

pub use rockshard_manifest::{Optimise, Placement};
use std::fmt;
use std::str::FromStr;

/// An option value that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not one of {expected}")]
pub struct OptionError {
    /// What was typed.
    pub value: String,
    /// What can be typed.
    pub expected: &'static str,
}

/// `--sandwich`: whether and how values are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sandwich {
    /// Store values as they are.
    Off,
    /// Powers of two, where the calibrated range leaves float16's normal range.
    Auto,
    /// This factor wherever the algebra allows one.
    Factor(f32),
}

/// `--tile`: how attention is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// Whole.
    Off,
    /// The cheapest lowering whose modelled memory fits.
    Auto,
    /// This many query rows at a time against all keys.
    Rows(usize),
    /// Blocks of this many query rows by this many keys, with a running maximum and sum.
    Grid(usize, usize),
    /// Heads split into one shard a core.
    Heads,
}

/// `--shards`: where the graph is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shards {
    /// As few as keep three cores busy and fit the memory.
    Auto,
    /// A resnet, attention, feed-forward or sampler block each.
    Block,
    /// A residual branch each (one attention and one MLP shard a transformer layer), stem and head apart.
    Layer,
    /// This many a model.
    Count(usize),
}

impl FromStr for Sandwich {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        match text {
            "off" => Ok(Sandwich::Off),
            "auto" => Ok(Sandwich::Auto),
            _ => match text.parse::<f32>() {
                Ok(f) if f.is_finite() && f > 0.0 => Ok(Sandwich::Factor(f)),
                _ => Err(OptionError {
                    value: text.into(),
                    expected: "off, auto, or a positive factor",
                }),
            },
        }
    }
}

impl FromStr for Tile {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let error = || OptionError {
            value: text.into(),
            expected: "off, auto, heads, rows:R or grid:RxC with R, C of 1 and more",
        };
        let number = |t: &str| t.parse::<usize>().ok().filter(|&n| n > 0).ok_or_else(error);
        match text.split_once(':') {
            None if text == "off" => Ok(Tile::Off),
            None if text == "auto" => Ok(Tile::Auto),
            None if text == "heads" => Ok(Tile::Heads),
            Some(("rows", rows)) => Ok(Tile::Rows(number(rows)?)),
            Some(("grid", grid)) => {
                let (rows, columns) = grid.split_once('x').ok_or_else(error)?;
                Ok(Tile::Grid(number(rows)?, number(columns)?))
            }
            _ => Err(error()),
        }
    }
}

impl FromStr for Shards {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        match text {
            "auto" => Ok(Shards::Auto),
            "block" => Ok(Shards::Block),
            "layer" => Ok(Shards::Layer),
            _ => match text.parse::<usize>() {
                Ok(n) if n > 0 => Ok(Shards::Count(n)),
                _ => Err(OptionError {
                    value: text.into(),
                    expected: "auto, block, layer, or a number of shards",
                }),
            },
        }
    }
}

impl fmt::Display for Sandwich {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sandwich::Off => f.write_str("off"),
            Sandwich::Auto => f.write_str("auto"),
            Sandwich::Factor(factor) => write!(f, "{factor}"),
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tile::Off => f.write_str("off"),
            Tile::Auto => f.write_str("auto"),
            Tile::Heads => f.write_str("heads"),
            Tile::Rows(r) => write!(f, "rows:{r}"),
            Tile::Grid(r, c) => write!(f, "grid:{r}x{c}"),
        }
    }
}

impl fmt::Display for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shards::Auto => f.write_str("auto"),
            Shards::Block => f.write_str("block"),
            Shards::Layer => f.write_str("layer"),
            Shards::Count(n) => write!(f, "{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_is_printed() {
        for text in ["off", "auto", "rows:512", "grid:32x32", "heads"] {
            assert_eq!(text.parse::<Tile>().unwrap().to_string(), text);
        }
        for text in ["off", "auto", "10", "0.5"] {
            assert_eq!(text.parse::<Sandwich>().unwrap().to_string(), text);
        }
        for text in ["auto", "block", "layer", "7"] {
            assert_eq!(text.parse::<Shards>().unwrap().to_string(), text);
        }
        for bad in ["rows:0", "grid:32", "grid:0x4", "rows", "half"] {
            assert!(bad.parse::<Tile>().is_err(), "{bad}");
        }
        assert!(
            "-1".parse::<Sandwich>().is_err()
                && "nan".parse::<Sandwich>().is_err()
                && "0".parse::<Shards>().is_err()
        );
    }
}
