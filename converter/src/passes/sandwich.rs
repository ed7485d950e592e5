//! Sandwich, first half: which factor each value is stored with.
//!
//! Values that an operator ties together (the operands of a sum, a tensor and its reshape) form a class and share one factor;
//! convolutions, products and norms may change it, because their constants can absorb the change. `--sandwich auto` looks at the
//! calibrated range of every value of a class and picks a power of two when the class leaves float16's normal range.

use rockshard_graph::{Binary, Graph, Op, Reduce, Unary, ValueId};
use rockshard_tensor::DType;
use std::collections::{BTreeMap, HashMap};

/// log2 from which float16 is infinite.
const OVERFLOW: i32 = 16;
/// Magnitudes from two powers below overflow count as too large: calibration does not see every input.
const LARGE: i32 = OVERFLOW - 2;
/// A root mean square below this power of two counts as too small.
const SMALL: i32 = -10;
/// Scaling leaves the largest magnitude below this power of two.
const TARGET_LARGEST: i32 = 12;
/// Factors are powers of two up to this one, either way: float16 holds them, and ordinary constants times them.
const MOST: i32 = 14;
const BINS: usize = 128;
const BIN_ZERO: i32 = 64;

/// Magnitudes of one value over the calibration inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// Largest magnitude; infinite when a value was not finite.
    pub max: f32,
    square_sum: f64,
    count: u64,
    bins: [u64; BINS],
}

/// Ranges by value name.
pub type Ranges = HashMap<String, Range>;

impl Default for Range {
    fn default() -> Self {
        Range { max: 0.0, square_sum: 0.0, count: 0, bins: [0; BINS] }
    }
}

impl Range {
    /// Take more elements into account.
    pub fn add(&mut self, values: &[f32]) {
        for &v in values {
            let magnitude = if v.is_nan() { f32::INFINITY } else { v.abs() };
            self.max = self.max.max(magnitude);
            self.square_sum += f64::from(magnitude).powi(2);
            if magnitude > 0.0 {
                self.bins[(exponent(magnitude).clamp(-BIN_ZERO, BINS as i32 - BIN_ZERO - 1)
                    + BIN_ZERO) as usize] += 1;
            }
        }
        self.count += values.len() as u64;
    }

    /// Elements that were zero.
    pub fn zeros(&self) -> u64 {
        self.count - self.bins.iter().sum::<u64>()
    }

    fn rms(&self) -> f64 {
        (self.square_sum / self.count.max(1) as f64).sqrt()
    }
}

/// The power of two at or below a positive number; for one below float32's normal range, that range's end.
fn exponent(magnitude: f32) -> i32 {
    (magnitude.to_bits() >> (f32::MANTISSA_DIGITS - 1)) as i32 - (f32::MAX_EXP - 1)
}

/// A factor for every value of a graph.
#[derive(Clone, Debug, Default)]
pub struct Scales {
    factors: HashMap<String, f32>,
    /// For each value whose class is scaled: the value that decided it.
    worst: HashMap<String, String>,
    /// Classes that leave the range but cannot be scaled, and why.
    pub declined: Vec<String>,
    /// Largest magnitudes, unscaled, where they are known.
    tops: HashMap<String, f32>,
}

impl Scales {
    /// Stored value over real value.
    pub fn of(&self, name: &str) -> f32 {
        self.factors.get(name).copied().unwrap_or(1.0)
    }

    /// Largest magnitude of a value as it is stored; 0 where it is not known.
    pub(super) fn top(&self, graph: &Graph, value: ValueId) -> f32 {
        let name = &graph.value(value).name;
        self.tops.get(name).copied().unwrap_or(0.0) * self.of(name)
    }

    /// Leave the class of a value at factor 1.
    fn drop_class(&mut self, worst: &str) {
        for name in self.members(worst) {
            self.worst.remove(&name);
            self.factors.remove(&name);
        }
    }

    /// Bring the factor of a value's class nearer to 1.
    pub(super) fn moderate(&mut self, worst: &str) {
        const STEP: f32 = 4.0;
        let factor = self.of(worst);
        let next = if factor > 1.0 { factor / STEP } else { factor * STEP };
        if (next > 1.0) == (factor > 1.0) && next != 1.0 {
            for name in self.members(worst) {
                self.factors.insert(name, next);
            }
            return;
        }
        self.declined
            .push(format!("sandwich: {worst}: a factor makes a constant that float16 cannot hold"));
        self.drop_class(worst);
    }

    fn members(&self, worst: &str) -> Vec<String> {
        self.worst.iter().filter(|(_, w)| *w == worst).map(|(name, _)| name.clone()).collect()
    }

    /// The values that decided a class, each with its factor, in order.
    pub fn classes(&self) -> BTreeMap<&str, f32> {
        self.worst.values().map(|w| (w.as_str(), self.of(w))).collect()
    }

    /// Only what is scaled down, or only the classes of these values.
    pub fn only(&self, keep: &dyn Fn(&str, f32) -> bool) -> Scales {
        let mut kept = self.clone();
        for (worst, factor) in self.classes() {
            if !keep(worst, factor) {
                kept.drop_class(worst);
            }
        }
        kept
    }

    /// The value that decided the factor of a value's class.
    pub fn worst(&self, name: &str) -> Option<&str> {
        self.worst.get(name).map(String::as_str)
    }

    /// Whether nothing is scaled.
    pub fn is_identity(&self) -> bool {
        self.factors.values().all(|&f| f == 1.0)
    }
}

/// Values that share a factor.
struct Classes {
    parent: Vec<usize>,
    /// Root of a class that must keep factor 1, with the operator that says so.
    fixed: HashMap<usize, &'static str>,
}

impl Classes {
    fn root(&mut self, mut i: usize) -> usize {
        while self.parent[i] != i {
            self.parent[i] = self.parent[self.parent[i]];
            i = self.parent[i];
        }
        i
    }

    fn join(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.root(a.index()), self.root(b.index()));
        if a != b {
            self.parent[b] = a;
            if let Some(why) = self.fixed.remove(&b) {
                self.fixed.entry(a).or_insert(why);
            }
        }
    }

    fn fix(&mut self, value: ValueId, why: &'static str) {
        let root = self.root(value.index());
        self.fixed.entry(root).or_insert(why);
    }

    /// The classes of a graph. `apart`: functions that are the identity near 0, or a value times a gate, may change the factor, at the
    /// price of being written out.
    fn of(graph: &Graph, apart: bool) -> Self {
        let mut classes =
            Classes { parent: (0..graph.values().len()).collect(), fixed: HashMap::new() };
        for node in graph.nodes() {
            let real = |id: &&ValueId| {
                graph.constant(**id).is_none() && graph.value(**id).dtype == DType::F32
            };
            let inputs: Vec<ValueId> = node.inputs.iter().filter(real).copied().collect();
            let constant = |i: usize| graph.constant(node.inputs[i]).is_some();
            match &node.op {
                // The constants absorb any change of factor.
                Op::Conv { .. } | Op::ConvTranspose { .. } | Op::MatMul => {}
                Op::LayerNorm { .. } | Op::InstanceNorm { .. } | Op::GroupNorm { .. }
                    if constant(1) && constant(2) => {}
                Op::Binary(Binary::Mul | Binary::Div)
                | Op::Unary(Unary::Sqrt | Unary::Reciprocal) => {}
                Op::Binary(Binary::Pow) if graph.scalar(node.inputs[1]).is_some() => {}
                Op::Unary(Unary::Tanh | Unary::HardSwish) | Op::Gelu { .. } if apart => {}
                Op::Attention { .. } => {
                    classes.join(node.inputs[2], node.output);
                    if let Some(&mask) = node.inputs.get(3) {
                        classes.fix(mask, "an attention's mask");
                    }
                }
                Op::Binary(Binary::Add | Binary::Sub | Binary::Min | Binary::Max)
                | Op::Where
                | Op::Unary(Unary::Relu | Unary::LeakyRelu(_) | Unary::Neg | Unary::Abs)
                | Op::Clip { .. }
                | Op::Swish { .. }
                | Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Concat { .. }
                | Op::Slice { .. }
                | Op::Gather { .. }
                | Op::Resize { .. }
                | Op::Pad { .. }
                | Op::Expand { .. }
                | Op::Pool { .. }
                | Op::Reduce {
                    kind: Reduce::Mean | Reduce::Sum | Reduce::Max | Reduce::Min, ..
                } => {
                    inputs.iter().for_each(|&i| classes.join(i, node.output));
                }
                other => classes.fix(node.output, other.name()),
            }
        }
        for (i, value) in graph.values().iter().enumerate() {
            if value.dtype != DType::F32 {
                let root = classes.root(i);
                classes.fixed.entry(root).or_insert("an integer value");
            }
        }
        classes
    }

    /// Classes as lists of the values that flow (no constants), in order.
    fn members(&mut self, graph: &Graph) -> Vec<(usize, Vec<ValueId>)> {
        let mut groups: Vec<(usize, Vec<ValueId>)> = Vec::new();
        let mut index: HashMap<usize, usize> = HashMap::new();
        let flowing = graph.inputs.iter().copied().chain(graph.nodes().iter().map(|n| n.output));
        for id in flowing {
            let root = self.root(id.index());
            let at = *index.entry(root).or_insert_with(|| {
                groups.push((root, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(id);
        }
        groups
    }
}

/// Powers of two for the classes whose calibrated range leaves float16's normal range, and for results of weights that float16 cannot hold
/// (`large`, with their largest magnitude); 1 for all others.
pub fn choose_scales(graph: &Graph, ranges: &Ranges, large: &HashMap<ValueId, f32>) -> Scales {
    let tops = ranges.iter().map(|(name, range)| (name.clone(), range.max)).collect();
    let mut scales = Scales { tops, ..Scales::default() };
    let mut classes = Classes::of(graph, true);
    for (root, members) in classes.members(graph) {
        let known: Vec<(&str, &Range)> = members
            .iter()
            .filter_map(|&v| ranges.get_key_value(&graph.value(v).name))
            .map(|(n, r)| (n.as_str(), r))
            .collect();
        let nonzero = || known.iter().filter(|(_, r)| r.max > 0.0);
        let Some(&(largest, high)) = nonzero().max_by(|a, b| a.1.max.total_cmp(&b.1.max)) else {
            continue;
        };
        let Some(&(smallest, low)) = nonzero().min_by(|a, b| a.1.rms().total_cmp(&b.1.rms()))
        else {
            continue;
        };
        let top = high.max.log2().ceil() as i32;
        let bottom = low.rms().log2().floor() as i32;
        let room = TARGET_LARGEST.saturating_sub(top);
        let (power, worst) = if !high.max.is_finite() || top > LARGE {
            (room, largest)
        } else if bottom < SMALL && room > 0 {
            ((-bottom).min(room), smallest)
        } else {
            continue;
        };
        if let Some(why) = classes.fixed.get(&root) {
            scales.declined.push(format!(
                "sandwich: {worst}: leaves float16's range (largest {:.3e}, rms {:.3e}), but {why} keeps it at scale 1",
                high.max,
                low.rms()
            ));
            continue;
        }
        if !high.max.is_finite() {
            scales.declined.push(format!(
                "sandwich: {worst}: not finite in the reference, scaling cannot help"
            ));
            continue;
        }
        for &v in &members {
            let name = graph.value(v).name.clone();
            scales.worst.insert(name.clone(), worst.to_owned());
            // Even, so that roots and squares of it are powers of two as well.
            let power = power.clamp(-MOST, MOST);
            scales.factors.insert(name, ((power - power.rem_euclid(2)) as f32).exp2());
        }
    }
    lower_for_weights(graph, large, &mut classes, &mut scales);
    scales
}

/// Lower the factor of results whose weights would not fit: they are multiplied by it.
fn lower_for_weights(
    graph: &Graph,
    large: &HashMap<ValueId, f32>,
    classes: &mut Classes,
    scales: &mut Scales,
) {
    if large.is_empty() {
        return;
    }
    let members: HashMap<usize, Vec<ValueId>> = classes.members(graph).into_iter().collect();
    for node in graph.nodes() {
        let weighted = matches!(
            node.op,
            Op::Conv { .. } | Op::ConvTranspose { .. } | Op::MatMul | Op::Binary(Binary::Mul)
        );
        let most = node.inputs.iter().filter_map(|v| large.get(v)).fold(0.0f32, |m, &v| m.max(v));
        let root = classes.root(node.output.index());
        if !weighted || most == 0.0 || classes.fixed.contains_key(&root) {
            continue;
        }
        let given = node.inputs.iter().filter(|v| graph.constant(**v).is_none());
        let given: f32 = given.map(|&v| scales.of(&graph.value(v).name)).product();
        // One power below what fits: the weight is rounded.
        let fits = ((OVERFLOW - 1) as f32 - most.log2() + given.log2()).floor() as i32;
        let power = fits - fits.rem_euclid(2);
        let name = &graph.value(node.output).name;
        if scales.of(name).log2() <= power as f32 || power < -MOST {
            continue;
        }
        for &v in members.get(&root).into_iter().flatten() {
            let member = graph.value(v).name.clone();
            scales.worst.insert(member.clone(), name.clone());
            scales.factors.insert(member, (power as f32).exp2());
        }
    }
}

/// One factor for every class that can have one.
pub fn uniform_scales(graph: &Graph, factor: f32) -> Scales {
    let mut scales = Scales::default();
    let mut classes = Classes::of(graph, false);
    for (root, members) in classes.members(graph) {
        if !classes.fixed.contains_key(&root) {
            for &v in &members {
                let name = graph.value(v).name.clone();
                scales.worst.insert(name.clone(), name.clone());
                scales.factors.insert(name, factor);
            }
        }
    }
    scales
}
