//! Whether pictures can be drawn with a pack, as its manifest and files tell: what loading it would find, without cores.

use crate::Error;
use crate::loading::{config, tokenizer};
use rockshard_diffusion::{
    NetworkError, NetworkSpec, Networks, PendingRun, Request, SamplerName, TensorMap, TextToImage,
};
use rockshard_manifest::{Family, Model, Role};
use rockshard_pack::Pack;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A pack at one of its sizes, as far as it is known without running it.
pub struct Drawable {
    drawing: TextToImage,
    size: [u32; 2],
}

impl Drawable {
    /// A text-to-image pack at each of its sizes, the first one first.
    ///
    /// # Errors
    /// What keeps a [`Painter`](crate::Painter) from drawing with it.
    pub fn all(pack: &Pack) -> Result<Vec<Self>, Error> {
        let unet = unet(pack)?;
        let config = config(pack)?;
        let tokenizer = Arc::new(tokenizer(pack)?);
        let mut sizes = vec![unet.resolution];
        sizes.extend(pack.manifest().resolutions().into_iter().filter(|r| *r != unet.resolution));
        let at = |resolution: Option<[u32; 2]>| {
            let described = pack.manifest().models.iter();
            let described =
                described.filter(|m| m.resolution.is_none() || m.resolution == resolution);
            let spec =
                |m: &Model| NetworkSpec { inputs: m.inputs.clone(), outputs: m.outputs.clone() };
            let networks = Described(described.map(|m| (m.role, spec(m))).collect());
            let drawing = TextToImage::new(Arc::new(networks), tokenizer.clone(), &config)?;
            Ok(Drawable { size: drawing.size(), drawing })
        };
        sizes
            .into_iter()
            .filter(|size| size.is_some() || unet.resolution.is_none())
            .map(at)
            .collect()
    }

    /// Width and height of its pictures, in pixels.
    pub fn size(&self) -> [u32; 2] {
        self.size
    }

    /// Pixels that a side of its pictures is a multiple of.
    pub fn multiple(&self) -> u32 {
        self.drawing.multiple()
    }

    /// Whether it has a use for a negative prompt.
    pub fn takes_negative_prompt(&self) -> bool {
        !self.drawing.takes_guidance()
    }

    /// Whether it can start from pictures.
    pub fn takes_pictures(&self) -> bool {
        self.drawing.takes_pictures()
    }

    /// As [`Painter::request`](crate::Painter::request).
    ///
    /// # Errors
    /// As there.
    pub fn request(&self, prompt: &str, sampler: Option<SamplerName>) -> Result<Request, Error> {
        Ok(self.drawing.request(prompt, sampler)?)
    }

    /// Whether a request can be done.
    ///
    /// # Errors
    /// What drawing it would refuse.
    pub fn check(&self, request: &Request) -> Result<(), Error> {
        Ok(self.drawing.check(request)?)
    }
}

/// What keeps a [`Painter`](crate::Painter) from drawing with a pack, at the size of its first U-Net. `None`: nothing that can be known without running it. A sampler
/// that is not there is told when the pack is converted.
pub fn drawing_problem(pack: &Pack) -> Option<Error> {
    Drawable::all(pack).err()
}

/// The U-Net of a text-to-image pack.
pub(crate) fn unet(pack: &Pack) -> Result<&Model, Error> {
    let manifest = pack.manifest();
    let fail = |problem: String| Error::NotDrawable { pack: pack.root().to_owned(), problem };
    if manifest.family != Family::TextToImage {
        return Err(fail(format!("its family is {}", manifest.family)));
    }
    let unet = manifest.models.iter().find(|m| m.role == Role::Unet);
    unet.ok_or_else(|| fail("it has no U-Net".into()))
}

/// Networks that are known by what they take and give, and cannot be run.
struct Described(BTreeMap<Role, NetworkSpec>);

impl Networks for Described {
    fn spec(&self, role: Role) -> Option<NetworkSpec> {
        self.0.get(&role).cloned()
    }

    fn submit(
        &self,
        role: Role,
        _items: Vec<TensorMap>,
    ) -> Result<Box<dyn PendingRun>, NetworkError> {
        Err(format!("{} is not loaded", role.word()).into())
    }
}
