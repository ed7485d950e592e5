//! Which of a text-to-image pack's models a painter loads: one a role, of the picture's size where there is one.

use crate::Error;
use rockshard_manifest::{Model, Role};
use rockshard_pack::{Footprint, Mode};
use rockshard_runtime::CoresOptions;

/// What the choice depends on.
pub(crate) struct Choice<'a> {
    pub models: &'a [Model],
    /// Picture size; a network that was not converted for it is taken at the first size it has.
    pub size: [u32; 2],
    /// Latent values along the sides of the decoder's input, where that is to be another one than the size's.
    pub tile: Option<u32>,
    /// Whether the VAE's encoder is needed.
    pub encoder: bool,
    /// Whether the tiny autoencoder stands in for the VAE.
    pub tiny: bool,
    pub cores: &'a CoresOptions,
    pub mode: Mode,
}

impl<'a> Choice<'a> {
    /// The models to load.
    pub fn models(&self) -> Result<Vec<&'a Model>, Error> {
        let mut chosen = Vec::new();
        for &role in Role::ALL {
            chosen.extend(match role {
                Role::VaeEncoder | Role::TinyEncoder if !self.encoder => None,
                Role::VaeEncoder | Role::VaeDecoder if self.tiny => None,
                Role::TinyEncoder | Role::TinyDecoder if !self.tiny => None,
                Role::VaeDecoder => self.decoder()?,
                _ => self.of(role),
            });
        }
        Ok(chosen)
    }

    fn of(&self, role: Role) -> Option<&'a Model> {
        let mut models = self.models.iter().filter(|m| m.role == role);
        let fits = |m: &&Model| m.resolution.is_none_or(|r| r == self.size);
        models.clone().find(fits).or_else(|| models.next())
    }

    /// The decoder: that of the tile asked for, or that of the picture's size where it fits the memory, or the largest smaller one
    /// that does.
    fn decoder(&self) -> Result<Option<&'a Model>, Error> {
        let sides =
            |m: &Model| m.inputs.first().and_then(|t| Some([*t.shape.get(2)?, *t.shape.get(3)?]));
        let mut decoders = self.models.iter().filter(|m| m.role == Role::VaeDecoder);
        if let Some(tile) = self.tile {
            let known = || {
                let sizes = decoders.clone().filter_map(sides).map(|[h, w]| format!("{w}x{h}"));
                sizes.collect::<Vec<_>>().join(", ")
            };
            let missing = || Error::NoTileDecoder { tile, known: known() };
            let found = decoders.clone().find(|m| sides(m) == Some([tile as usize; 2]));
            return found.map(Some).ok_or_else(missing);
        }
        let Some(whole) = self.of(Role::VaeDecoder) else { return Ok(None) };
        let cores = usize::from(self.cores.cores);
        let fits = |m: &Model| {
            let bytes = Footprint::of(m, cores, self.mode).bytes();
            self.cores.memory_limit.is_none_or(|limit| bytes <= limit)
        };
        if fits(whole) {
            return Ok(Some(whole));
        }
        let area = |m: &Model| sides(m).map_or(0, |[h, w]| h * w);
        let smaller = decoders.by_ref().filter(|m| area(m) < area(whole) && fits(m));
        let smaller = smaller.max_by_key(|m| area(m));
        if let Some([h, w]) = smaller.and_then(sides) {
            tracing::warn!(
                "the decoder of the picture's size does not fit the memory limit: decoding in tiles of {w}x{h} latent values"
            );
        }
        Ok(Some(smaller.unwrap_or(whole)))
    }
}
