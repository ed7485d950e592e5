//! One shard in a context of its own.

use crate::api::{Api, Context, Elements, Port};
use crate::arena::{Arena, NoRoom, Share};
use crate::native::Native;
use crate::origins::Lease;
use crate::pool::{Buffer, Pool};
use crate::{CallError, RknnDevice, Versions};
use rockshard_device::{
    Completion, DeviceError, DeviceErrorKind, Kept, Session, ShardFile, Value, Version,
    check_values,
};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_rknn_abi::{Code, TensorAttr, dtype, flag, format, text_of};
use rockshard_tensor::{DType, Tensor};
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

/// Oldest runtime that has what this crate calls, with float16 models of rknn-toolkit2 2.3: another major version is another API.
const RUNTIME: [u32; 2] = [2, 3];
/// Oldest driver that goes with it.
const DRIVER: [u32; 2] = [0, 9];

pub(crate) struct RknnSession {
    shard: ShardFile,
    core: CoreId,
    simulated: bool,
    lease: Lease,
    /// None where the runtime has the memory of activations.
    share: Option<Share>,
    route: Route,
}

/// How inputs and outputs go to and from the NPU.
enum Route {
    /// By the runtime's copies.
    Copies,
    /// In memory that the NPU reaches.
    Memory { pool: Arc<Pool>, inputs: Vec<Side>, outputs: Vec<Side> },
}

/// An input or output in memory.
struct Side {
    port: Port,
    attr: TensorAttr,
    native: Native,
    /// What the host's tensors are brought to.
    staging: Option<Buffer>,
}

/// A tensor that a session left in memory.
struct Stored {
    native: Native,
    buffer: Buffer,
}

impl Kept for Stored {
    fn shape(&self) -> &[usize] {
        &self.native.shape
    }

    fn stored(&self) -> (DType, &[u8]) {
        (DType::F16, &self.buffer.contents()[..self.native.bytes])
    }

    fn read(&self) -> Tensor {
        self.native.read(self.buffer.contents())
    }
}

impl RknnSession {
    pub(crate) fn open(
        device: &RknnDevice,
        shard: &ShardFile,
        number: u8,
    ) -> Result<Self, DeviceError> {
        let core = CoreId::Npu(number);
        let arena = device.arenas.get(usize::from(number));
        let load =
            |detail: String| DeviceError::new(DeviceErrorKind::Load, &shard.name, core, detail);
        let called =
            |e: CallError| DeviceError::new(kind(e, DeviceErrorKind::Load), &shard.name, core, e);
        for (role, specs) in [("input", &shard.inputs), ("output", &shard.outputs)] {
            if let Some(spec) = specs.iter().find(|spec| !spec.dtype.is_float()) {
                return Err(load(format!(
                    "{role} {:?} is {}: the NPU takes real numbers, run this shard on the host",
                    spec.name, spec.dtype
                )));
            }
        }
        let text = path_text(shard).map_err(load)?;
        let flags = if arena.is_some() { flag::INTERNAL_ALLOC_OUTSIDE } else { 0 };
        let open = || device.origins.open(&device.api, &shard.path, &text, flags);
        let lease = open()
            .or_else(|error| device.make_room(error).and_then(|()| open()))
            .map_err(called)?;
        let mut context = lease.context();
        let found = ask_versions(&context).map_err(called)?;
        if let Some(problem) = unfit("librknnrt", &found.runtime, RUNTIME).or(unfit(
            "the NPU's driver",
            &found.driver,
            DRIVER,
        )) {
            return Err(DeviceError::new(DeviceErrorKind::Unavailable, &shard.name, core, problem));
        }
        context.set_core_mask(1 << number).map_err(called)?;
        let numbers = context.numbers().map_err(called)?;
        let mut sides: [Vec<Option<Side>>; 2] = Default::default();
        for (output, found, specs) in
            [(false, numbers.n_input, &shard.inputs), (true, numbers.n_output, &shard.outputs)]
        {
            let role = if output { "output" } else { "input" };
            if found as usize != specs.len() {
                return Err(load(format!(
                    "the model has {found} {role}s, the manifest {}",
                    specs.len()
                )));
            }
            for (index, spec) in specs.iter().enumerate() {
                let port = Port { output, index };
                let attr = context.attribute(port).map_err(called)?;
                boundary(role, spec, &attr).map_err(load)?;
                let attr = context.native(port).map_err(called)?;
                let side = Native::of(&attr, &spec.shape).map(|native| Side {
                    port,
                    attr,
                    native,
                    staging: None,
                });
                if side.is_none() {
                    tracing::info!(
                        "shard {}: {role} {:?} has a layout that is not known, so tensors are copied: {attr:?}",
                        shard.name,
                        spec.name
                    );
                }
                sides[usize::from(output)].push(side);
            }
        }
        let internal_bytes = context.internal_bytes().map_err(called)?;
        // The arena may have to be waited for, and nobody is to wait for the context meanwhile.
        drop(context);
        let share = |arena: &Arc<Arena>| match arena.share(internal_bytes) {
            Err(NoRoom::Refused(error)) => {
                device.make_room(error)?;
                arena.share(internal_bytes)
            }
            shared => shared,
        };
        let share = arena.map(share).transpose().map_err(|e| no_room(e, shard, core))?;
        let [inputs, outputs] = sides.map(|sides| sides.into_iter().collect::<Option<Vec<_>>>());
        let route = match (inputs, outputs) {
            (Some(inputs), Some(outputs)) if share.is_some() => {
                Route::Memory { pool: device.pool.clone(), inputs, outputs }
            }
            _ => Route::Copies,
        };
        Ok(RknnSession {
            shard: shard.clone(),
            core,
            simulated: device.api.simulated,
            lease,
            share,
            route,
        })
    }
}

fn path_text(shard: &ShardFile) -> Result<CString, String> {
    let text = shard.path.to_str().and_then(|p| CString::new(p).ok());
    text.ok_or_else(|| format!("{}: the runtime takes paths in UTF-8 only", shard.path.display()))
}

fn ask_versions(context: &Context) -> Result<Versions, CallError> {
    let found = context.version()?;
    Ok(Versions { runtime: text_of(&found.api_version), driver: text_of(&found.drv_version) })
}

/// The versions that a context of the shard tells.
pub(crate) fn versions(api: &Arc<Api>, shard: &ShardFile) -> Result<Versions, DeviceError> {
    let fail = |kind, detail: String| DeviceError::new(kind, &shard.name, CoreId::Npu(0), detail);
    let text = path_text(shard).map_err(|e| fail(DeviceErrorKind::Load, e))?;
    let context = Context::open(api, &text, 0).and_then(|context| ask_versions(&context));
    context.map_err(|e| fail(kind(e, DeviceErrorKind::Load), e.to_string()))
}

/// The class of a failed call; `other` where the code does not tell.
fn kind(error: CallError, other: DeviceErrorKind) -> DeviceErrorKind {
    match error.code() {
        Some(Code::DeviceUnavailable | Code::DeviceUnmatch) => DeviceErrorKind::Unavailable,
        Some(Code::Malloc) => DeviceErrorKind::Memory,
        Some(Code::Input) => DeviceErrorKind::Input,
        Some(
            Code::Model
            | Code::PlatformUnmatch
            | Code::IncompatiblePreCompile
            | Code::IncompatibleOptimization,
        ) => DeviceErrorKind::Load,
        _ => other,
    }
}

/// Activations that a session could not have.
fn no_room(error: NoRoom, shard: &ShardFile, core: CoreId) -> DeviceError {
    let kind = match error {
        NoRoom::Refused(error) => kind(error, DeviceErrorKind::Load),
        NoRoom::Held => DeviceErrorKind::Memory,
    };
    DeviceError::new(kind, &shard.name, core, error)
}

/// Why a version is not one that this crate knows: another major one, or older than `oldest`.
fn unfit(what: &str, version: &str, oldest: [u32; 2]) -> Option<String> {
    let [major, minor] = oldest;
    let fits = Version::parse(version).is_some_and(|Version([a, b, _])| a == major && b >= minor);
    (!fits).then(|| format!("{what} is of version {version:?}; {major}.{minor} or newer, of the same major version, is needed"))
}

/// The model's tensor must be the manifest's, whichever order its attributes are in.
fn boundary(role: &str, spec: &TensorSpec, attr: &TensorAttr) -> Result<(), String> {
    let shape = match (attr.fmt, &spec.shape[..]) {
        (format::NHWC, &[n, c, h, w]) => vec![n, h, w, c],
        _ => spec.shape.clone(),
    };
    let fits = attr.extents().iter().map(|&d| d as usize).eq(shape.iter().copied());
    let name = text_of(&attr.name);
    if !matches!(attr.dtype, dtype::FLOAT32 | dtype::FLOAT16) {
        return Err(format!("{role} {:?} holds no real numbers in the model", spec.name));
    }
    // Names in the C API are cut at 255 bytes.
    if !fits || !spec.name.starts_with(&name) {
        return Err(format!(
            "{role} {:?} of the manifest is {:?}, the model has {name:?}, {:?}",
            spec.name,
            spec.shape,
            attr.extents()
        ));
    }
    Ok(())
}

fn elements(tensor: &Tensor) -> Elements<'_> {
    Elements {
        bytes: tensor.bytes(),
        dtype: if tensor.dtype() == DType::F16 { dtype::FLOAT16 } else { dtype::FLOAT32 },
        fmt: if tensor.shape().len() == 4 { format::NCHW } else { format::UNDEFINED },
    }
}

impl Session for RknnSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        let inputs: Vec<Value> = inputs.iter().cloned().map(Value::Host).collect();
        let Completion { outputs, modelled, streaming } = self.run_between(&inputs, &[])?;
        Ok(Completion { outputs: outputs.iter().map(Value::tensor).collect(), modelled, streaming })
    }

    fn run_between(
        &mut self,
        inputs: &[Value],
        keep: &[bool],
    ) -> Result<Completion<Value>, DeviceError> {
        check_values(&self.shard, self.core, inputs)?;
        let failed = |e: CallError| {
            DeviceError::new(kind(e, DeviceErrorKind::Run), &self.shard.name, self.core, e)
        };
        let mut context = self.lease.context();
        let turn = self.share.as_ref().map(Share::turn).transpose();
        let turn = turn.map_err(|e| no_room(e, &self.shard, self.core))?;
        turn.iter().try_for_each(|turn| turn.bind(&mut context)).map_err(failed)?;
        let outputs = match &mut self.route {
            Route::Copies => copied(&mut context, inputs, &self.shard.outputs).map_err(failed)?,
            Route::Memory { pool, inputs: taken, outputs: given } => {
                taken
                    .iter_mut()
                    .zip(inputs)
                    .try_for_each(|(side, input)| side.take(&mut context, pool, input))
                    .map_err(failed)?;
                let buffers = given
                    .iter()
                    .map(|side| side.place(&mut context, pool))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(failed)?;
                context.run().map_err(failed)?;
                given.iter().try_for_each(|side| context.sync(side.port)).map_err(failed)?;
                let give = |(at, (side, buffer)): (usize, (&Side, Buffer))| {
                    side.give(buffer, keep.get(at) == Some(&true))
                };
                given.iter().zip(buffers).enumerate().map(give).collect()
            }
        };
        drop(turn);
        let modelled = match self.simulated {
            true => Some(Duration::from_micros(context.micros().map_err(failed)?.unsigned_abs())),
            false => None,
        };
        Ok(Completion { outputs, modelled, streaming: Duration::ZERO })
    }
}

impl Drop for RknnSession {
    fn drop(&mut self) {
        // The context may live on as the one that others are duplicated from.
        self.lease.context().release();
    }
}

impl Side {
    /// Let a value stand for this input: where it lies, or brought into memory of this session.
    fn take(
        &mut self,
        context: &mut Context,
        pool: &Arc<Pool>,
        value: &Value,
    ) -> Result<(), CallError> {
        if let Some(stored) = value.kept::<Stored>()
            && stored.buffer.is_of(pool)
            && self.native.reads(&stored.native)
            && stored.buffer.bytes() >= self.native.bytes
        {
            return context.bind(self.port, &stored.buffer, &self.attr);
        }
        let buffer = match &mut self.staging {
            Some(buffer) => buffer,
            none => none.insert(pool.take(self.native.bytes)?),
        };
        self.native.write(&value.tensor(), buffer.contents_mut());
        context.bind(self.port, buffer, &self.attr)?;
        context.sync(self.port)
    }

    /// Memory that stands for this output.
    fn place(&self, context: &mut Context, pool: &Arc<Pool>) -> Result<Buffer, CallError> {
        let buffer = pool.take(self.native.bytes)?;
        context.bind(self.port, &buffer, &self.attr)?;
        Ok(buffer)
    }

    /// What a run left for this output.
    fn give(&self, buffer: Buffer, keep: bool) -> Value {
        if keep {
            return Value::Kept(Arc::new(Stored { native: self.native.clone(), buffer }));
        }
        Value::Host(self.native.read(buffer.contents()))
    }
}

/// A run whose inputs and outputs the runtime copies.
fn copied(
    context: &mut Context,
    inputs: &[Value],
    specs: &[TensorSpec],
) -> Result<Vec<Value>, CallError> {
    // The runtime reads elements where they lie, so they are aligned for their type.
    let aligned =
        |t: Tensor| if (t.bytes().as_ptr() as usize).is_multiple_of(4) { t } else { t.detached() };
    let tensors: Vec<Tensor> = inputs.iter().map(|value| aligned(value.tensor())).collect();
    let counts: Vec<usize> = specs.iter().map(|spec| spec.shape.iter().product()).collect();
    let values =
        context.run_on_copies(&tensors.iter().map(elements).collect::<Vec<_>>(), &counts)?;
    Ok(specs
        .iter()
        .zip(values)
        .map(|(spec, values)| Value::Host(Tensor::from_f32(spec.shape.clone(), values)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_checked() {
        for (version, fits) in [
            ("2.3.2 (429f97ae6b@2025)", true),
            ("2.5.0", true),
            ("2.2.9", false),
            ("3.0.0", false),
            ("", false),
        ] {
            assert_eq!(unfit("librknnrt", version, RUNTIME).is_none(), fits, "{version}");
        }
        assert_eq!(unfit("the NPU's driver", "0.9.8", DRIVER), None);
        let problem = unfit("the NPU's driver", "0.8.2", DRIVER).unwrap();
        assert!(problem.contains("0.8.2") && problem.contains("0.9 or newer"), "{problem}");
    }
}
