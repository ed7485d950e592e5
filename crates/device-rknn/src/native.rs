//! How the NPU has a tensor in its memory, and what it takes to bring a host's tensor there and back.

use half::f16;
use rockshard_rknn_abi::{TensorAttr, dtype, format};
use rockshard_tensor::{DType, Tensor};

/// Channels in a group.
const GROUP: usize = 8;

/// A real-valued tensor in the NPU's memory, in float16.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Native {
    /// Extents on the host.
    pub(crate) shape: Vec<usize>,
    order: Order,
    /// Bytes, padding included.
    pub(crate) bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    /// Row-major.
    Plain,
    /// `[images, groups, rows, columns, 8]` with padding after the last groups, columns and rows.
    Groups { groups: usize, rows: usize, columns: usize },
}

impl Native {
    /// The layout that native attributes describe, for a tensor of this shape on the host. None where they describe one that this crate does not know.
    pub(crate) fn of(attr: &TensorAttr, shape: &[usize]) -> Option<Self> {
        let extents: Vec<usize> = attr.extents().iter().map(|&d| d as usize).collect();
        let or = |stride: u32, extent: usize| if stride == 0 { extent } else { stride as usize };
        let (order, elements) = match (attr.fmt, &extents[..], shape) {
            (format::NC1HWC2, &[n, groups, h, w, GROUP], &[images, channels, height, width])
                if (n, h, w) == (images, height, width) && groups * GROUP >= channels =>
            {
                let (rows, columns) = (or(attr.h_stride, h), or(attr.w_stride, w));
                if rows < h || columns < w {
                    return None;
                }
                (Order::Groups { groups, rows, columns }, n * groups * rows * columns * GROUP)
            }
            (format::UNDEFINED | format::NCHW, extents, shape) if extents == shape => {
                let row = shape.last().copied().unwrap_or(1);
                if or(attr.w_stride, row) != row || attr.h_stride != 0 {
                    return None;
                }
                (Order::Plain, shape.iter().product())
            }
            _ => return None,
        };
        let stated = attr.size.max(attr.size_with_stride) as usize;
        let float16 = attr.dtype == dtype::FLOAT16 && attr.qnt_type == 0;
        float16.then(|| Native {
            shape: shape.to_vec(),
            order,
            bytes: stated.max(elements * size_of::<f16>()),
        })
    }

    /// Whether an input of this layout can be read where an output of another one lies. Without a second image, groups that the output has more do
    /// not matter.
    pub(crate) fn reads(&self, output: &Native) -> bool {
        let order = match (self.order, output.order) {
            (
                Order::Groups { groups, rows, columns },
                Order::Groups { groups: written, rows: r, columns: c },
            ) => {
                (rows, columns) == (r, c)
                    && (written == groups || (written > groups && self.shape[0] == 1))
            }
            (mine, its) => mine == its,
        };
        order && self.shape == output.shape
    }

    /// Bring a host's tensor of this shape into memory of this many bytes.
    pub(crate) fn write(&self, tensor: &Tensor, memory: &mut [u8]) {
        let half = tensor.to_float(DType::F16).expect("inputs that fit have real numbers");
        let source = half.bytes();
        match self.order {
            Order::Plain => memory[..source.len()].copy_from_slice(source),
            Order::Groups { .. } => {
                memory.fill(0);
                self.each_row(|row, place| {
                    for (element, at) in source[row].chunks_exact(2).zip(place) {
                        memory[at..at + 2].copy_from_slice(element);
                    }
                });
            }
        }
    }

    /// The host's tensor, in float16.
    pub(crate) fn read(&self, memory: &[u8]) -> Tensor {
        let count: usize = self.shape.iter().product();
        let mut plain = vec![0; count * size_of::<f16>()];
        match self.order {
            Order::Plain => {
                let count = plain.len();
                plain.copy_from_slice(&memory[..count]);
            }
            Order::Groups { .. } => self.each_row(|row, place| {
                for (element, at) in plain[row].chunks_exact_mut(2).zip(place) {
                    element.copy_from_slice(&memory[at..at + 2]);
                }
            }),
        }
        Tensor::new(DType::F16, self.shape.clone(), plain.into())
            .expect("there are as many elements as the shape says")
    }

    /// For each row of a tensor in groups: its bytes on the host, and where each of its elements lies in memory.
    fn each_row(
        &self,
        mut visit: impl FnMut(std::ops::Range<usize>, std::iter::StepBy<std::ops::RangeFrom<usize>>),
    ) {
        let (Order::Groups { groups, rows, columns }, &[n, c, h, w]) =
            (self.order, &self.shape[..])
        else {
            return;
        };
        let size = size_of::<f16>();
        let mut from = 0;
        for image in 0..n {
            for channel in 0..c {
                for row in 0..h {
                    let first = (((image * groups + channel / GROUP) * rows + row) * columns)
                        * GROUP
                        + channel % GROUP;
                    visit(from..from + w * size, (first * size..).step_by(GROUP * size));
                    from += w * size;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(fmt: u32, extents: &[u32]) -> TensorAttr {
        let mut attr = TensorAttr {
            n_dims: extents.len() as u32,
            fmt,
            dtype: dtype::FLOAT16,
            ..TensorAttr::of(0)
        };
        attr.dims[..extents.len()].copy_from_slice(extents);
        attr
    }

    #[test]
    fn only_layouts_that_are_known_are_taken() {
        let shape = [1, 12, 4, 6];
        let known =
            |attr: &TensorAttr, shape: &[usize]| Native::of(attr, shape).map(|native| native.bytes);
        let groups = attr(format::NC1HWC2, &[1, 2, 4, 6, 8]);
        assert_eq!(known(&groups, &shape), Some(2 * 4 * 6 * 8 * 2));
        assert_eq!(known(&TensorAttr { w_stride: 8, ..groups }, &shape), Some(2 * 4 * 8 * 8 * 2));
        assert_eq!(known(&TensorAttr { size_with_stride: 5000, ..groups }, &shape), Some(5000));
        assert_eq!(
            known(&attr(format::UNDEFINED, &[1, 77, 768]), &[1, 77, 768]),
            Some(77 * 768 * 2)
        );
        let unknown = [
            TensorAttr { dtype: dtype::FLOAT32, ..groups },
            TensorAttr { qnt_type: 2, ..groups },
            TensorAttr { w_stride: 5, ..groups },
            attr(format::NC1HWC2, &[1, 1, 4, 6, 8]),
            attr(format::NC1HWC2, &[1, 1, 4, 6, 16]),
            attr(format::NHWC, &[1, 4, 6, 12]),
            attr(format::UNDEFINED, &[12, 4, 6]),
        ];
        for attr in unknown {
            assert_eq!(known(&attr, &shape), None, "{attr:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_lies_in_groups() {
        let (shape, count) = ([2, 12, 3, 5], 2 * 12 * 3 * 5);
        let tensor = Tensor::from_f32(shape, (0..count).map(|i| i as f32).collect());
        for strides in [[0, 0], [4, 8]] {
            let attr = TensorAttr {
                h_stride: strides[0],
                w_stride: strides[1],
                ..attr(format::NC1HWC2, &[2, 2, 3, 5, 8])
            };
            let native = Native::of(&attr, &shape).unwrap();
            let mut memory = vec![0xff; native.bytes];
            native.write(&tensor, &mut memory);
            assert_eq!(native.read(&memory).to_f32().unwrap(), tensor.to_f32().unwrap());
            let [rows, columns] = if strides[0] == 0 { [3, 5] } else { [4, 8] };
            // Image 1, channel 9, row 2, column 4.
            let at = (((3 * rows + 2) * columns + 4) * 8 + 1) * 2;
            assert_eq!(
                f16::from_le_bytes([memory[at], memory[at + 1]]).to_f32(),
                (((12 + 9) * 3 + 2) * 5 + 4) as f32
            );
        }
    }

    #[test]
    fn an_input_reads_an_output_whose_elements_lie_where_its_own_do() {
        let native = |images: usize, groups: u32, w_stride: u32| {
            let attr =
                TensorAttr { w_stride, ..attr(format::NC1HWC2, &[images as u32, groups, 4, 6, 8]) };
            Native::of(&attr, &[images, 12, 4, 6]).unwrap()
        };
        let plain = |extents: &[u32]| {
            Native::of(
                &attr(format::UNDEFINED, extents),
                &extents.iter().map(|&d| d as usize).collect::<Vec<_>>(),
            )
            .unwrap()
        };
        let table = [
            (native(1, 2, 0), native(1, 2, 0), true),
            (native(1, 2, 0), native(1, 2, 6), true),
            (native(1, 2, 0), native(1, 2, 8), false),
            (native(1, 2, 0), native(1, 4, 0), true),
            (native(1, 4, 0), native(1, 2, 0), false),
            (native(2, 2, 0), native(2, 2, 0), true),
            (native(2, 2, 0), native(2, 4, 0), false),
            (plain(&[1, 5, 8]), plain(&[1, 5, 8]), true),
            (plain(&[1, 5, 8]), plain(&[1, 8, 5]), false),
            (plain(&[1, 12, 4, 6]), native(1, 2, 0), false),
        ];
        for (input, output, reads) in table {
            assert_eq!(input.reads(&output), reads, "{input:?} {output:?}");
        }
    }
}
