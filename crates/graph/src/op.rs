//! The operators, with their attributes resolved.

use rockshard_tensor::DType;
use std::sync::Arc;

/// Sliding-window geometry of convolutions and pools over `[N, C, H, W]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Kernel extents `[height, width]`.
    pub kernel: [usize; 2],
    /// Steps `[down, right]`.
    pub strides: [usize; 2],
    /// Zero padding `[top, left, bottom, right]`.
    pub pads: [usize; 4],
    /// Distance between kernel taps `[down, right]`.
    pub dilations: [usize; 2],
}

/// Element-wise functions of one input.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Unary {
    Neg,
    Abs,
    Sqrt,
    Reciprocal,
    Exp,
    Log,
    Sin,
    Cos,
    Tanh,
    Sigmoid,
    Erf,
    Relu,
    /// Slope of the negative side.
    LeakyRelu(f32),
    /// `x` where positive, else the factor times `exp(x) - 1`.
    Elu(f32),
    /// `log(1 + exp(x))`.
    Softplus,
    /// `min(max(alpha x + beta, 0), 1)`.
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    /// `x min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
    Floor,
    Ceil,
    /// To the nearest whole number, halves to the even one.
    Round,
    Sign,
    Not,
}

/// Element-wise functions of two inputs with numpy broadcasting. Comparisons and logic give bool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Min,
    Max,
    Mod,
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
}

impl Binary {
    /// Whether the result is bool.
    pub fn is_logic(self) -> bool {
        use Binary::*;
        matches!(self, Equal | Less | LessOrEqual | Greater | GreaterOrEqual | And | Or)
    }
}

/// Reductions over axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reduce {
    Mean,
    Sum,
    Max,
    Min,
    Prod,
}

/// Pooling functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Largest value in the window.
    Max,
    /// Mean of the window; `true` counts padding as zeros.
    Average(bool),
}

/// Interpolation of [`Op::Resize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Output pixel i takes input pixel `floor(i * in / out)`.
    Nearest,
    /// Linear between pixel centres (`half_pixel`), edges clamped.
    Linear,
}

/// An operator that only the host's engine knows.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOp {
    /// ONNX's name, of the standard domain.
    pub name: &'static str,
    /// Its attributes, as an encoded ONNX `NodeProto`.
    pub attributes: Vec<u8>,
    /// For each of ONNX's input places, whether it has an input.
    pub places: Vec<bool>,
    /// Types and shapes of its inputs.
    pub inputs: Vec<(DType, Vec<usize>)>,
    /// Types and shapes of all its outputs.
    pub outputs: Vec<(DType, Vec<usize>)>,
}

/// An operator. Inputs are positional; constants are ordinary values.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `x [N,C,H,W], weight [O,C/group,kh,kw], bias [O]?`
    Conv {
        /// Geometry.
        window: Window,
        /// Channel groups.
        group: usize,
    },
    /// `x [N,C,H,W], weight [C,O/group,kh,kw], bias [O]?`: each input value times the kernel, added up in the output, of which `pads`
    /// are cut off.
    ConvTranspose {
        /// Geometry; strides and pads are the output's.
        window: Window,
        /// Channel groups.
        group: usize,
        /// Rows and columns more at the end.
        more: [usize; 2],
    },
    /// Matrix product with numpy batch broadcasting.
    MatMul,
    /// Element-wise, one input.
    Unary(Unary),
    /// Element-wise, two inputs.
    Binary(Binary),
    /// Limit to `[min, max]`.
    Clip {
        /// Lower bound.
        min: f32,
        /// Upper bound.
        max: f32,
    },
    /// `condition, a, b`: a where true.
    Where,
    /// Softmax along one axis.
    Softmax {
        /// Axis, counted from the front.
        axis: usize,
    },
    /// `x, gamma, beta`: normalise over axes `axis..`; gamma and beta have their shape.
    LayerNorm {
        /// First normalised axis.
        axis: usize,
        /// Added to the variance.
        epsilon: f32,
    },
    /// `x [N,C,...], gamma [C], beta [C]`: normalise each channel of each item.
    InstanceNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// `x [N,C,...], gamma [C], beta [C]`: normalise each group of channels of each item.
    GroupNorm {
        /// Number of groups.
        groups: usize,
        /// Added to the variance.
        epsilon: f32,
    },
    /// `q [..,L,d], k_transposed [..,d,S], v [..,S,e], mask?`: `softmax(q k * scale + mask) v`.
    Attention {
        /// Factor on the scores.
        scale: f32,
    },
    /// `x * sigmoid(beta * x)`.
    Swish {
        /// 1 for SiLU, 1.702 for the quick GELU of CLIP.
        beta: f32,
    },
    /// Gaussian error linear unit.
    Gelu {
        /// The tanh approximation instead of erf.
        tanh: bool,
    },
    /// Another shape for the same elements.
    Reshape {
        /// Target shape.
        shape: Vec<usize>,
    },
    /// Axis `i` of the output is axis `perm[i]` of the input.
    Transpose {
        /// Permutation.
        perm: Vec<usize>,
    },
    /// Join along one axis.
    Concat {
        /// Axis, counted from the front.
        axis: usize,
    },
    /// Elements `begin, begin+step, ...` below `end` on every axis; steps are positive.
    Slice {
        /// First index of each axis.
        begin: Vec<usize>,
        /// One past the last index of each axis.
        end: Vec<usize>,
        /// Stride of each axis.
        step: Vec<usize>,
    },
    /// `data, indices`: take entries along one axis; negative indices count from the end.
    Gather {
        /// Axis, counted from the front.
        axis: usize,
    },
    /// Scale the last two axes of `[N,C,H,W]`.
    Resize {
        /// Interpolation.
        mode: Resize,
        /// Output `[height, width]`.
        size: [usize; 2],
    },
    /// Surround with a constant.
    Pad {
        /// Elements before, an axis each.
        before: Vec<usize>,
        /// Elements after, an axis each.
        after: Vec<usize>,
        /// The constant.
        value: f32,
    },
    /// Broadcast to a shape.
    Expand {
        /// Target shape.
        shape: Vec<usize>,
    },
    /// Reduce over axes.
    Reduce {
        /// Function.
        kind: Reduce,
        /// Axes, ascending.
        axes: Vec<usize>,
        /// Keep reduced axes with extent 1.
        keep: bool,
    },
    /// Pool `[N,C,H,W]`.
    Pool {
        /// Function.
        kind: Pool,
        /// Geometry.
        window: Window,
    },
    /// Index of the first largest element along an axis, as int64.
    ArgMax {
        /// Axis, counted from the front.
        axis: usize,
        /// Keep the axis with extent 1.
        keep: bool,
    },
    /// Convert the element type (between integers, bool and float32).
    Cast(DType),
    /// An output of an operator that only the host's engine knows. Nodes with the same operator and inputs are one.
    Host(Arc<HostOp>, usize),
}

impl Op {
    /// The operator's name: ONNX's where ONNX has it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Conv { .. } => "Conv",
            Op::ConvTranspose { .. } => "ConvTranspose",
            Op::MatMul => "MatMul",
            Op::Unary(u) => match u {
                Unary::Neg => "Neg",
                Unary::Abs => "Abs",
                Unary::Sqrt => "Sqrt",
                Unary::Reciprocal => "Reciprocal",
                Unary::Exp => "Exp",
                Unary::Log => "Log",
                Unary::Sin => "Sin",
                Unary::Cos => "Cos",
                Unary::Tanh => "Tanh",
                Unary::Sigmoid => "Sigmoid",
                Unary::Erf => "Erf",
                Unary::Relu => "Relu",
                Unary::LeakyRelu(_) => "LeakyRelu",
                Unary::Elu(_) => "Elu",
                Unary::Softplus => "Softplus",
                Unary::HardSigmoid { .. } => "HardSigmoid",
                Unary::HardSwish => "HardSwish",
                Unary::Floor => "Floor",
                Unary::Ceil => "Ceil",
                Unary::Round => "Round",
                Unary::Sign => "Sign",
                Unary::Not => "Not",
            },
            Op::Binary(b) => match b {
                Binary::Add => "Add",
                Binary::Sub => "Sub",
                Binary::Mul => "Mul",
                Binary::Div => "Div",
                Binary::Pow => "Pow",
                Binary::Min => "Min",
                Binary::Max => "Max",
                Binary::Mod => "Mod",
                Binary::Equal => "Equal",
                Binary::Less => "Less",
                Binary::LessOrEqual => "LessOrEqual",
                Binary::Greater => "Greater",
                Binary::GreaterOrEqual => "GreaterOrEqual",
                Binary::And => "And",
                Binary::Or => "Or",
            },
            Op::Clip { .. } => "Clip",
            Op::Where => "Where",
            Op::Softmax { .. } => "Softmax",
            Op::LayerNorm { .. } => "LayerNormalization",
            Op::InstanceNorm { .. } => "InstanceNormalization",
            Op::GroupNorm { .. } => "GroupNormalization",
            Op::Attention { .. } => "Attention",
            Op::Swish { .. } => "Swish",
            Op::Gelu { .. } => "Gelu",
            Op::Reshape { .. } => "Reshape",
            Op::Transpose { .. } => "Transpose",
            Op::Concat { .. } => "Concat",
            Op::Slice { .. } => "Slice",
            Op::Gather { .. } => "Gather",
            Op::Resize { .. } => "Resize",
            Op::Pad { .. } => "Pad",
            Op::Expand { .. } => "Expand",
            Op::Reduce { kind, .. } => match kind {
                Reduce::Mean => "ReduceMean",
                Reduce::Sum => "ReduceSum",
                Reduce::Max => "ReduceMax",
                Reduce::Min => "ReduceMin",
                Reduce::Prod => "ReduceProd",
            },
            Op::Pool { kind: Pool::Max, .. } => "MaxPool",
            Op::Pool { kind: Pool::Average(_), .. } => "AveragePool",
            Op::ArgMax { .. } => "ArgMax",
            Op::Cast(_) => "Cast",
            Op::Host(host, _) => host.name,
        }
    }
}
