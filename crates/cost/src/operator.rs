//! Time and traffic of one operator.

use crate::Rk3588;
use crate::transpose::moves_nothing;
use rockshard_graph::{Binary, Graph, Node, Op, Unary, Value};

/// Channels that the NPU's layout stores together in float16 (1.3).
const CHANNEL_UNIT: usize = 8;

/// Modelled cost of one operator on one core.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OpCost {
    /// Microseconds.
    pub micros: f64,
    /// Cycles as the vendor's compiler states them, for operators it models: the larger of compute and memory.
    pub cycles: Option<u64>,
    /// Bytes read (weights included) and written; with an attention's scores, each written and read once.
    pub dram_bytes: u64,
}

/// A convolution or matrix product as the multiplier array sees it.
struct Array {
    batch: u64,
    positions: u64,
    steps: u64,
    channels: u64,
    /// Measured over modelled time.
    factor: f64,
    /// Bytes of the bias beyond two a channel.
    bias: u64,
}

impl Rk3588 {
    /// Cost of one node, standing alone: an Add that the compiler takes into the operator before it ([`crate::fused_bias`])
    /// costs as much as any other.
    pub fn node(&self, graph: &Graph, node: &Node) -> OpCost {
        let inputs: Vec<&Value> = node.inputs.iter().map(|&v| graph.value(v)).collect();
        let output = graph.value(node.output);
        let dram_bytes = inputs.iter().map(|v| v.npu_bytes()).sum::<u64>() + output.npu_bytes();
        let stream =
            |rate: f64| OpCost { micros: dram_bytes as f64 / rate * 1e6, cycles: None, dram_bytes };
        if self.fallback(graph, node).is_some() {
            return stream(self.host_bytes_per_second);
        }
        match &node.op {
            Op::Conv { .. } | Op::MatMul | Op::ConvTranspose { .. } => {
                self.array_cost(&self.array(graph, node, &inputs, output), dram_bytes)
            }
            Op::Attention { .. } => {
                let keys = inputs[1].shape.last().copied().unwrap_or(0);
                let rows = output.count() / output.shape.last().copied().unwrap_or(1).max(1);
                // `rows` counts those of every head; the memory of one head's scores is used again for the next.
                let pairs = (rows * keys) as f64;
                let dram_bytes = dram_bytes + (2.0 * self.attention_bytes_per_pair * pairs) as u64;
                OpCost { micros: self.attention_nanos * 1e-3 * pairs, cycles: None, dram_bytes }
            }
            Op::LayerNorm { .. }
            | Op::InstanceNorm { .. }
            | Op::GroupNorm { .. }
            | Op::Softmax { .. } => {
                let micros = output.count() as f64 / self.norm_elements_per_second * 1e6;
                OpCost {
                    micros: micros + self.norm_moves_micros(&node.op, output),
                    cycles: None,
                    dram_bytes,
                }
            }
            Op::Transpose { perm } if moves_nothing(&inputs[0].shape, perm) => OpCost::default(),
            Op::Reshape { shape } if same_but_ones(&inputs[0].shape, shape) => OpCost::default(),
            Op::Transpose { .. } => stream(self.transpose_bytes_per_second),
            Op::Reshape { .. }
            | Op::Concat { .. }
            | Op::Slice { .. }
            | Op::Gather { .. }
            | Op::Pad { .. }
            | Op::Expand { .. } => stream(self.copy_bytes_per_second),
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Clip { .. }
            | Op::Where
            | Op::Swish { .. }
            | Op::Gelu { .. }
            | Op::Resize { .. }
            | Op::Reduce { .. }
            | Op::Pool { .. }
            | Op::ArgMax { .. }
            | Op::Cast(_)
            | Op::Host(..) => stream(self.elementwise_bytes_per_second),
        }
    }

    /// What the compiler moves on the CPU around a group norm: a Reshape behind one of small groups; a transpose on each side of one whose
    /// channels are no multiple of the unit (toolkit 3: 100, 110 and 220 channels in groups of 10 and 20, but not 80, 120, 160, 176, 440).
    fn norm_moves_micros(&self, op: &Op, output: &Value) -> f64 {
        let Op::GroupNorm { groups, .. } = *op else { return 0.0 };
        let (channels, bytes) =
            (output.shape.get(1).copied().unwrap_or(0), output.npu_bytes() as f64);
        let small = channels / groups.max(1) < CHANNEL_UNIT;
        let reshape = if small { 2.0 * bytes / self.host_reshape_bytes_per_second } else { 0.0 };
        let transposes = if channels % CHANNEL_UNIT == 0 {
            0.0
        } else {
            4.0 * bytes / self.host_bytes_per_second
        };
        (reshape + transposes) * 1e6
    }

    fn array(&self, graph: &Graph, node: &Node, inputs: &[&Value], output: &Value) -> Array {
        let (x, w) = (&inputs[0].shape, &inputs[1].shape);
        if let Op::Conv { window, group } = &node.op {
            let taps = (window.kernel[0] * window.kernel[1]) as u64;
            let (depth, group) = (w[1] as u64, *group as u64);
            let channels = w[0] as u64 / group.max(1);
            // One channel a group: the vendor's depthwise formula, at half the channels of int8.
            let depthwise = depth == 1 && channels == 1 && group > 1;
            let positions = (output.shape[2] * output.shape[3]) as u64;
            return Array {
                batch: if depthwise { x[0] as u64 } else { x[0] as u64 * group },
                positions,
                steps: if depthwise {
                    taps
                } else {
                    (taps * depth.div_ceil(self.depth_step)).max(self.least_steps)
                },
                channels: if depthwise {
                    group.div_ceil(self.depth_step) * self.channel_step
                } else {
                    channels
                },
                factor: self.factor(output.shape[2] == 1, depth * taps),
                bias: if inputs.len() > 2 { 2 * w[0] as u64 } else { 0 },
            };
        }
        if let Op::ConvTranspose { window, group, .. } = &node.op {
            // Every output takes the taps that meet an input: the whole kernel over the strides.
            let taps = (window.kernel[0] * window.kernel[1]) as u64;
            let group = *group as u64;
            let depth = x[1] as u64 / group.max(1);
            return Array {
                batch: x[0] as u64 * group,
                positions: (x[2] * x[3]) as u64,
                steps: depth.div_ceil(self.depth_step).max(self.least_steps) * taps,
                channels: w[1] as u64,
                factor: self.factor(false, depth * taps),
                bias: if inputs.len() > 2 { 2 * w[1] as u64 * group } else { 0 },
            };
        }
        let depth = x.last().copied().unwrap_or(1) as u64;
        let columns = if w.len() > 1 { w[w.len() - 1] } else { 1 };
        let rows = if x.len() > 1 { x[x.len() - 2] } else { 1 };
        let batch = output.count() / (rows * columns).max(1);
        let by_constant = graph.constant(node.inputs[1]).is_some();
        let steps = depth.div_ceil(self.depth_step);
        Array {
            batch: batch as u64,
            positions: rows as u64,
            steps: if by_constant { steps.max(self.least_steps) } else { steps },
            channels: columns as u64,
            factor: if by_constant { self.factor(true, depth) } else { self.convolution_factor },
            bias: 0,
        }
    }

    fn factor(&self, flat: bool, depth: u64) -> f64 {
        let long = if flat { depth as f64 / self.flat_depth } else { 0.0 };
        long.max(self.convolution_factor)
    }

    fn array_cost(&self, array: &Array, dram_bytes: u64) -> OpCost {
        let positions = array.positions.next_multiple_of(self.position_step.max(1));
        let compute = array.batch
            * positions
            * array.steps
            * array.channels.div_ceil(self.channel_step.max(1));
        // A bias takes 4 bytes a channel, not 2.
        let dram_bytes = dram_bytes + array.bias;
        let memory = (dram_bytes as f64 / self.ddr_bytes_per_cycle).round() as u64;
        let busy = compute as f64 / self.clock_hz * array.factor;
        let streaming = dram_bytes as f64 / self.core_bytes_per_second;
        OpCost { micros: busy.max(streaming) * 1e6, cycles: Some(compute.max(memory)), dram_bytes }
    }

    /// Why the runtime runs a node on the CPU; `None` for nodes of the NPU (docs/rk3588.md 2.5).
    pub fn fallback(&self, graph: &Graph, node: &Node) -> Option<&'static str> {
        let x = graph.value(*node.inputs.first()?);
        let output = graph.value(node.output);
        if !output.dtype.is_float() || !x.dtype.is_float() {
            return Some("the NPU computes real numbers only");
        }
        match &node.op {
            Op::Transpose { perm }
                if !self.transposes(&x.shape, perm, graph.inputs.contains(&node.inputs[0])) =>
            {
                Some("the shape is not in the NPU's transpose table")
            }
            Op::Unary(
                Unary::Erf
                | Unary::Sin
                | Unary::Cos
                | Unary::Exp
                | Unary::Log
                | Unary::Floor
                | Unary::Ceil
                | Unary::Round
                | Unary::Sign
                | Unary::Not,
            ) => Some("the NPU does not have this function"),
            Op::Binary(Binary::Mod) => Some("the NPU does not have this function"),
            Op::Binary(Binary::Pow)
                if !graph
                    .scalar(node.inputs[1])
                    .is_some_and(|e| [0.0, 1.0, 2.0, 3.0, 0.5, -0.5].contains(&e)) =>
            {
                Some("the NPU has the exponents 0, 1, 2, 3, 0.5 and -0.5 only")
            }
            Op::Reduce { .. } | Op::Where | Op::ArgMax { .. } | Op::Host(..) => {
                Some("the NPU does not have this operator")
            }
            Op::Slice { step, .. } if step.iter().any(|&s| s > 1) => {
                Some("the NPU slices with step 1 only")
            }
            Op::Resize { size, .. } => {
                let whole = (0..2).all(|i| {
                    let (from, to) = (x.shape[2 + i], size[i]);
                    from > 0 && to % from == 0 && (1..=8).contains(&(to / from))
                });
                (!whole).then_some("the NPU resizes by whole factors up to 8 only")
            }
            Op::Pool { window, .. } if window.dilations != [1, 1] => {
                Some("the NPU pools without dilation only")
            }
            _ => None,
        }
    }
}

/// Whether two shapes differ only in axes of extent 1.
fn same_but_ones(a: &[usize], b: &[usize]) -> bool {
    let long = |s: &[usize]| s.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
    long(a) == long(b)
}
