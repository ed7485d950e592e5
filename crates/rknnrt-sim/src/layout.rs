//! Tensors in the types and orders of the C API.

use bytes::Bytes;
use rockshard_manifest::TensorSpec;
use rockshard_rknn_abi::{Code, MAX_DIMS, TensorAttr, dtype, format, text};
use rockshard_tensor::{DType, Tensor};

use crate::Refusal;

/// Channels in a group of the NPU's own layout, for float16.
const GROUP: usize = 8;
/// What channels are padded to in that layout: inputs and most outputs to whole groups.
pub(crate) const CHANNELS: usize = GROUP;
/// The same for outputs of convolutions (docs/rk3588.md 1.3).
pub(crate) const CONVOLUTION_CHANNELS: usize = 2 * GROUP;

/// An element type and an order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Layout {
    pub(crate) dtype: DType,
    pub(crate) order: Order,
}

/// An order of elements; only tensors of four axes have others than `Plain`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    Plain,
    ChannelsLast,
    /// Groups of 8 channels, which are padded to a multiple of this.
    Groups(usize),
}

impl Layout {
    /// From the numbers of the C API, for a tensor of a shape whose native layout pads to `channels`.
    pub(crate) fn of(code: u32, fmt: u32, shape: &[usize], channels: usize) -> Option<Self> {
        let dtype = match code {
            dtype::FLOAT32 => DType::F32,
            dtype::FLOAT16 => DType::F16,
            dtype::INT64 => DType::I64,
            dtype::INT32 => DType::I32,
            dtype::BOOL => DType::Bool,
            _ => return None,
        };
        let order = match fmt {
            _ if shape.len() != 4 => Order::Plain,
            format::NCHW | format::UNDEFINED => Order::Plain,
            format::NHWC => Order::ChannelsLast,
            format::NC1HWC2 => Order::Groups(channels),
            _ => return None,
        };
        Some(Layout { dtype, order })
    }

    /// What the NPU stores a tensor in.
    pub(crate) fn native(spec: &TensorSpec, channels: usize) -> Self {
        Layout {
            dtype: stored(spec),
            order: if spec.shape.len() == 4 { Order::Groups(channels) } else { Order::Plain },
        }
    }

    /// Bytes of a tensor of a shape.
    pub(crate) fn bytes(self, shape: &[usize]) -> usize {
        extents(self.order, shape).iter().product::<usize>() * self.dtype.size()
    }

    /// The tensor in a buffer, as the simulator takes it.
    pub(crate) fn read(self, buffer: &[u8], spec: &TensorSpec) -> Result<Tensor, Refusal> {
        let bytes = self.bytes(&spec.shape);
        if buffer.len() != bytes || !self.dtype.is_float() {
            let detail = format!(
                "input {:?}: {} of {:?} takes {bytes} bytes, got {}",
                spec.name,
                self.dtype,
                spec.shape,
                buffer.len()
            );
            return Err(Refusal::new(Code::Input, detail));
        }
        let mut plain = vec![0; spec.shape.iter().product::<usize>() * self.dtype.size()];
        self.each(&spec.shape, |at, place| plain[at.clone()].copy_from_slice(&buffer[place]));
        let tensor = Tensor::new(self.dtype, spec.shape.clone(), Bytes::from(plain))
            .and_then(|t| t.to_float(DType::F16));
        tensor.map_err(|e| Refusal::new(Code::Input, format!("input {:?}: {e}", spec.name)))
    }

    /// Write a tensor that the simulator gave into a buffer of [`Layout::bytes`].
    pub(crate) fn write(self, tensor: &Tensor, buffer: &mut [u8]) -> Result<(), Refusal> {
        let refuse = |e: &dyn std::fmt::Display| Refusal::new(Code::Output, e);
        let plain = match (tensor.dtype(), self.dtype) {
            (from, to) if from == to => tensor.clone(),
            (from, DType::F32) if !from.is_float() => {
                let values = tensor.to_i64().map_err(|e| refuse(&e))?;
                Tensor::from_f32(tensor.shape(), values.iter().map(|&v| v as f32).collect())
            }
            (_, to) => tensor.to_float(to).map_err(|e| refuse(&e))?,
        };
        if buffer.len() != self.bytes(tensor.shape()) {
            return Err(refuse(&format!(
                "an output of {} bytes was given {}",
                self.bytes(tensor.shape()),
                buffer.len()
            )));
        }
        buffer.fill(0);
        self.each(tensor.shape(), |at, place| {
            buffer[place].copy_from_slice(&plain.bytes()[at.clone()])
        });
        Ok(())
    }

    /// Bytes of each element: where in row-major order, and where in this one.
    fn each(
        self,
        shape: &[usize],
        mut visit: impl FnMut(&std::ops::Range<usize>, std::ops::Range<usize>),
    ) {
        let size = self.dtype.size();
        let range = |at: usize| at * size..(at + 1) * size;
        let &[n, c, h, w] = shape else {
            let all = 0..shape.iter().product::<usize>() * size;
            return visit(&all, all.clone());
        };
        let place = |image: usize, channel: usize, row: usize, column: usize| match self.order {
            Order::Plain => ((image * c + channel) * h + row) * w + column,
            Order::ChannelsLast => ((image * h + row) * w + column) * c + channel,
            Order::Groups(to) => {
                let groups = groups(c, to);
                (((image * groups + channel / GROUP) * h + row) * w + column) * GROUP
                    + channel % GROUP
            }
        };
        let mut at = 0;
        for (image, channel) in (0..n).flat_map(|image| (0..c).map(move |channel| (image, channel)))
        {
            for (row, column) in (0..h).flat_map(|row| (0..w).map(move |column| (row, column))) {
                visit(&range(at), range(place(image, channel, row, column)));
                at += 1;
            }
        }
    }
}

/// Groups of channels that are padded to a multiple of `to`.
fn groups(channels: usize, to: usize) -> usize {
    channels.next_multiple_of(to) / GROUP
}

/// Element type in the NPU's memory.
pub(crate) fn stored(spec: &TensorSpec) -> DType {
    if spec.dtype.is_float() { DType::F16 } else { spec.dtype }
}

fn extents(order: Order, shape: &[usize]) -> Vec<usize> {
    match (order, shape) {
        (Order::ChannelsLast, &[n, c, h, w]) => vec![n, h, w, c],
        (Order::Groups(to), &[n, c, h, w]) => vec![n, groups(c, to), h, w, GROUP],
        _ => shape.to_vec(),
    }
}

/// The attributes of a tensor in an order.
pub(crate) fn attributes(index: u32, spec: &TensorSpec, order: Order) -> TensorAttr {
    let four = spec.shape.len() == 4;
    let order = if four { order } else { Order::Plain };
    let dtype = stored(spec);
    let size = Layout { dtype, order }.bytes(&spec.shape) as u32;
    let extents = extents(order, &spec.shape);
    let mut dims = [0; MAX_DIMS];
    for (dim, extent) in dims.iter_mut().zip(&extents) {
        *dim = *extent as u32;
    }
    TensorAttr {
        n_dims: extents.len().min(MAX_DIMS) as u32,
        dims,
        name: text(&spec.name),
        n_elems: spec.shape.iter().product::<usize>() as u32,
        size,
        fmt: match order {
            Order::Plain if four => format::NCHW,
            Order::Plain => format::UNDEFINED,
            Order::ChannelsLast => format::NHWC,
            Order::Groups(_) => format::NC1HWC2,
        },
        dtype: match dtype {
            DType::F32 => dtype::FLOAT32,
            DType::F16 => dtype::FLOAT16,
            DType::I64 => dtype::INT64,
            DType::I32 => dtype::INT32,
            DType::Bool => dtype::BOOL,
        },
        scale: 1.0,
        w_stride: if four { spec.shape[3] as u32 } else { 0 },
        size_with_stride: size,
        ..TensorAttr::of(index)
    }
}
