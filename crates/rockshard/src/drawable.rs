//! Whether pictures can be drawn with a pack, as its manifest and files tell: what loading it would find, without cores.

use crate::Error;
use crate::loading::{config, tokenizer};
use rockshard_diffusion::{
    NetworkError, NetworkSpec, Networks, PendingRun, TensorMap, TextToImage,
};
use rockshard_manifest::{Family, Model, Role};
use rockshard_pack::Pack;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What keeps a [`Painter`](crate::Painter) from drawing with a pack, at the size of its first U-Net. `None`: nothing that can be known without running it. A sampler
/// that is not there is told when the pack is converted.
pub fn drawing_problem(pack: &Pack) -> Option<Error> {
    check(pack).err()
}

fn check(pack: &Pack) -> Result<(), Error> {
    let unet = unet(pack)?;
    let config = config(pack)?;
    let tokenizer = Arc::new(tokenizer(pack)?);
    let fits = |m: &&Model| m.resolution.is_none() || m.resolution == unet.resolution;
    let described = pack.manifest().models.iter().filter(fits);
    let spec = |m: &Model| NetworkSpec { inputs: m.inputs.clone(), outputs: m.outputs.clone() };
    let networks = Described(described.map(|m| (m.role, spec(m))).collect());
    TextToImage::new(Arc::new(networks), tokenizer, &config)?;
    Ok(())
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
