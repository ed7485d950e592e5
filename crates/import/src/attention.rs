//! Attention and rotary positions, lowered to products and a softmax, which the compiler fuses.

use crate::Problem;
use crate::operators::Context;
use rockshard_graph::{Binary, Op, Reduce, Unary, ValueId};
use rockshard_tensor::{DType, Tensor};

/// What hides a key when it is added to its score.
const HIDDEN: f32 = f32::NEG_INFINITY;

/// Queries `[B,H,L,d]`, keys and values `[B,G,S,d]` and what else makes scores.
pub(crate) struct Attention {
    pub q: ValueId,
    pub k: ValueId,
    pub v: ValueId,
    /// Added to the scores, or false where a key is hidden.
    pub mask: Option<ValueId>,
    pub scale: f32,
    /// Scores are limited to this by a hyperbolic tangent; 0 for none.
    pub softcap: f32,
    /// Place of the first query among the keys.
    pub first: usize,
    /// How many keys before and behind its own place a query sees; all where nothing is said.
    pub seen: [Option<i64>; 2],
}

impl Attention {
    /// The result `[B,H,L,e]`, and the scores at the named stage where one is asked for: raw or capped.
    pub fn lower(
        self,
        c: &mut Context<'_, '_>,
        stage: Option<usize>,
    ) -> Result<(ValueId, Option<ValueId>), Problem> {
        let heads = c.walk.shape(self.q)[1];
        let (k, v) = (repeated(c, self.k, heads)?, repeated(c, self.v, heads)?);
        let k = c.transposed(k, vec![0, 1, 3, 2])?;
        let product = c.step("scores", Op::MatMul, &[self.q, k])?;
        let mut scores = c.with_number("scaled", Binary::Mul, product, self.scale)?;
        let mut seen = [scores; 2];
        if self.softcap > 0.0 {
            let over = c.with_number("over", Binary::Div, scores, self.softcap)?;
            let bent = c.step("bent", Op::Unary(Unary::Tanh), &[over])?;
            scores = c.with_number("capped", Binary::Mul, bent, self.softcap)?;
        }
        seen[1] = scores;
        let bools = self.mask.is_some_and(|m| c.walk.value(m).dtype == DType::Bool);
        let mut mask: Option<ValueId> = None;
        for part in [self.mask, self.places(c)?].into_iter().flatten() {
            let part = added(c, part)?;
            mask = Some(match mask {
                Some(mask) => c.binary("masks", Binary::Add, mask, part)?,
                None => part,
            });
        }
        if let Some(mask) = mask {
            scores = c.binary("masked", Binary::Add, scores, mask)?;
        }
        let weights = c.step("weights", Op::Softmax { axis: 3 }, &[scores])?;
        let mut result = c.step("attention", Op::MatMul, &[weights, v])?;
        if let Some(mask) = mask.filter(|_| bools) {
            result = without_hidden_rows(c, result, mask)?;
        }
        Ok((result, stage.and_then(|s| seen.get(s).copied())))
    }

    /// What hides keys by their place.
    fn places(&self, c: &mut Context<'_, '_>) -> Result<Option<ValueId>, Problem> {
        let [before, behind] = self.seen;
        if before.is_none() && behind.is_none() {
            return Ok(None);
        }
        let (rows, keys) = (c.walk.shape(self.q)[2], c.walk.shape(self.k)[2]);
        c.walk.spend(rows.saturating_mul(keys))?;
        let shown = |i: usize| {
            let distance = (i / keys + self.first) as i64 - (i % keys) as i64;
            before.is_none_or(|most| distance <= most)
                && behind.is_none_or(|most| -distance <= most)
        };
        let mask = (0..rows * keys).map(|i| if shown(i) { 0.0 } else { HIDDEN });
        Ok(Some(c.constant("places", Tensor::from_f32([rows, keys], mask.collect()))))
    }
}

/// Zero where the mask hides all keys.
fn without_hidden_rows(
    c: &mut Context<'_, '_>,
    result: ValueId,
    mask: ValueId,
) -> Result<ValueId, Problem> {
    let axes = vec![c.rank(mask).saturating_sub(1)];
    let top = c.step("top", Op::Reduce { kind: Reduce::Max, axes, keep: true }, &[mask])?;
    let nothing = c.with_number("nothing", Binary::Less, top, f32::MIN)?;
    if c.walk.constant(nothing).is_some_and(|t| t.to_i64().is_ok_and(|v| v.iter().all(|&v| v == 0)))
    {
        return Ok(result);
    }
    let (zero, one) = (c.filled(&[], 0.0)?, c.filled(&[], 1.0)?);
    let factor = c.step("factor", Op::Where, &[nothing, zero, one])?;
    c.binary("seen", Binary::Mul, result, factor)
}

/// Each head as often as makes `heads` of them.
fn repeated(c: &mut Context<'_, '_>, x: ValueId, heads: usize) -> Result<ValueId, Problem> {
    let &[n, groups, length, width] = c.walk.shape(x) else {
        return Err(Problem::Form("keys and values need four axes".into()));
    };
    if groups == heads {
        return Ok(x);
    }
    if groups == 0 || !heads.is_multiple_of(groups) {
        return Err(Problem::Form(format!("{heads} heads of queries, {groups} of keys")));
    }
    let apart = c.reshaped(x, vec![n, groups, 1, length, width])?;
    let shape = vec![n, groups, heads / groups, length, width];
    let spread = c.step("repeated", Op::Expand { shape }, &[apart])?;
    c.reshaped(spread, vec![n, heads, length, width])
}

/// A mask of bools as one to be added.
pub(crate) fn added(c: &mut Context<'_, '_>, mask: ValueId) -> Result<ValueId, Problem> {
    if c.walk.value(mask).dtype != DType::Bool {
        return Ok(mask);
    }
    let (shown, hidden) = (c.filled(&[], 0.0)?, c.filled(&[], HIDDEN)?);
    c.step("mask", Op::Where, &[mask, shown, hidden])
}

/// `[B,L,H*d]` as `[B,H,L,d]`; four axes as they are.
pub(crate) fn heads_first(
    c: &mut Context<'_, '_>,
    x: ValueId,
    heads: usize,
) -> Result<ValueId, Problem> {
    match *c.walk.shape(x) {
        [_, _, _, _] => Ok(x),
        [n, length, width] if heads > 0 && width % heads == 0 => {
            let apart = c.reshaped(x, vec![n, length, heads, width / heads])?;
            c.transposed(apart, vec![0, 2, 1, 3])
        }
        ref other => Err(Problem::Form(format!("{heads} heads of shape {other:?}"))),
    }
}

/// `[B,H,L,d]` as `[B,L,H*d]`.
pub(crate) fn heads_last(c: &mut Context<'_, '_>, x: ValueId) -> Result<ValueId, Problem> {
    let &[n, heads, length, width] = c.walk.shape(x) else {
        return Err(Problem::Form("needs four axes".into()));
    };
    let moved = c.transposed(x, vec![0, 2, 1, 3])?;
    c.reshaped(moved, vec![n, length, heads * width])
}

/// Earlier keys or values with new ones behind them.
pub(crate) fn behind(
    c: &mut Context<'_, '_>,
    past: Option<ValueId>,
    new: ValueId,
) -> Result<(ValueId, usize), Problem> {
    match past {
        Some(past) if c.walk.value(past).count() > 0 => {
            let length = c.walk.shape(past).get(2).copied().unwrap_or(0);
            Ok((c.step("present", Op::Concat { axis: 2 }, &[past, new])?, length))
        }
        _ => Ok((new, 0)),
    }
}

pub(crate) fn count(c: &Context<'_, '_>, name: &str) -> usize {
    usize::try_from(c.attributes.int(name, 0)).unwrap_or(0)
}

/// The standard operator.
pub(crate) fn attention(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    if c.optional(6).is_some() {
        return Err(Problem::Form("nonpad_kv_seqlen is not supported".into()));
    }
    let q = c.input(0)?;
    let flat = c.rank(q) == 3;
    let (heads, groups) = (count(c, "q_num_heads"), count(c, "kv_num_heads"));
    let (k, v) = (c.input(1)?, c.input(2)?);
    let q = heads_first(c, q, heads)?;
    let (k, v) = (heads_first(c, k, groups)?, heads_first(c, v, groups)?);
    let (past_k, past_v) = (c.optional(4), c.optional(5));
    let (k, past) = behind(c, past_k, k)?;
    let (v, _) = behind(c, past_v, v)?;
    c.bind_output(1, k);
    c.bind_output(2, v);
    let width = c.walk.shape(q)[3].max(1) as f32;
    let most = |name: &str| Some(c.attributes.int(name, -1)).filter(|&n| n >= 0);
    let mut seen = [most("left_window_size"), most("right_window_size")];
    if c.attributes.int("is_causal", 0) != 0 {
        seen[1] = Some(0);
    }
    let lowered = Attention {
        q,
        k,
        v,
        mask: widened(c, c.optional(3), k)?,
        scale: c.attributes.float("scale", 1.0 / width.sqrt()),
        softcap: c.attributes.float("softcap", 0.0),
        first: past,
        seen,
    };
    let stage = c.has_output(3).then(|| count(c, "qk_matmul_output_mode"));
    // What a row that is hidden whole holds there, the rewritten masks do not keep.
    if stage.is_some_and(|stage| stage >= 2) {
        return Err(Problem::Form("qk_matmul_output behind the mask is not supported".into()));
    }
    let (result, scores) = lowered.lower(c, stage)?;
    if let Some(scores) = scores {
        c.bind_output(3, scores);
    }
    let result = if flat { heads_last(c, result)? } else { result };
    c.alias(result)
}

/// A mask for fewer keys than there are hides the rest.
fn widened(
    c: &mut Context<'_, '_>,
    mask: Option<ValueId>,
    k: ValueId,
) -> Result<Option<ValueId>, Problem> {
    let Some(mask) = mask else { return Ok(None) };
    let keys = c.walk.shape(k)[2];
    let shape = c.walk.shape(mask).to_vec();
    match shape.last() {
        Some(&last) if last < keys && last > 1 => {
            let mask = added(c, mask)?;
            let mut after = vec![0; shape.len()];
            after[shape.len() - 1] = keys - last;
            let op = Op::Pad { before: vec![0; shape.len()], after, value: HIDDEN };
            Ok(Some(c.step("widened", op, &[mask])?))
        }
        _ => Ok(Some(mask)),
    }
}

/// Rotary positions; `places` says which inputs are the value, the cosines, the sines and the positions.
pub(crate) fn rotary(c: &mut Context<'_, '_>, places: [usize; 4]) -> Result<(), Problem> {
    let [x, cos, sin] = [0, 1, 2].map(|i| c.input(places[i]));
    let (x, cos, sin) = (x?, cos?, sin?);
    let flat = c.rank(x) == 3;
    let heads = match count(c, "num_heads") {
        0 if flat => {
            // The cache tells how wide a head is.
            let half = c.walk.shape(cos).last().copied().unwrap_or(0);
            c.walk.shape(x)[2] / (2 * half).max(1)
        }
        heads => heads,
    };
    let value = heads_first(c, x, heads)?;
    let positions = c.optional(places[3]);
    let interleaved = c.attributes.int("interleaved", 0) != 0;
    let partial = count(c, "rotary_embedding_dim");
    let turned = turned(c, value, [cos, sin], positions, interleaved, partial)?;
    let result = if flat { heads_last(c, turned)? } else { turned };
    c.alias(result)
}

/// `[B,H,L,d]` with pairs of elements turned by the angles of their positions; elements from `partial` on stay, unless it is 0.
pub(crate) fn turned(
    c: &mut Context<'_, '_>,
    x: ValueId,
    cache: [ValueId; 2],
    positions: Option<ValueId>,
    interleaved: bool,
    partial: usize,
) -> Result<ValueId, Problem> {
    let &[_, _, length, width] = c.walk.shape(x) else {
        return Err(Problem::Form("needs four axes".into()));
    };
    let part = if partial == 0 { width } else { partial };
    if part > width || part % 2 != 0 {
        return Err(Problem::Form(format!("turns {part} of {width} elements")));
    }
    let [cos, sin] =
        [angles(c, cache[0], positions, length)?, angles(c, cache[1], positions, length)?];
    let moved = if part < width { c.part(x, 3, 0, part, 1)? } else { x };
    let half = part / 2;
    let (a, b) = if interleaved {
        (c.part(moved, 3, 0, part, 2)?, c.part(moved, 3, 1, part, 2)?)
    } else {
        (c.part(moved, 3, 0, half, 1)?, c.part(moved, 3, half, part, 1)?)
    };
    let mut products = Vec::new();
    for (value, factor) in [(a, cos), (b, sin), (a, sin), (b, cos)] {
        products.push(c.binary("turned", Binary::Mul, value, factor)?);
    }
    let real = c.binary("real", Binary::Sub, products[0], products[1])?;
    let imaginary = c.binary("imaginary", Binary::Add, products[2], products[3])?;
    let mut result = if interleaved {
        let dims = c.walk.shape(real).to_vec();
        let column = [dims.clone(), vec![1]].concat();
        let (real, imaginary) = (c.reshaped(real, column.clone())?, c.reshaped(imaginary, column)?);
        let pairs = c.step("pairs", Op::Concat { axis: 4 }, &[real, imaginary])?;
        c.reshaped(pairs, [dims[..3].to_vec(), vec![part]].concat())?
    } else {
        c.step("halves", Op::Concat { axis: 3 }, &[real, imaginary])?
    };
    if part < width {
        let rest = c.part(x, 3, part, width, 1)?;
        result = c.step("whole", Op::Concat { axis: 3 }, &[result, rest])?;
    }
    Ok(result)
}

/// The cache's rows at the positions, `[B,1,L,d/2]`; `[1,1,L,d/2]` where there are no positions. One position is the first one's.
fn angles(
    c: &mut Context<'_, '_>,
    cache: ValueId,
    positions: Option<ValueId>,
    length: usize,
) -> Result<ValueId, Problem> {
    let rows = match positions {
        None => cache,
        Some(positions) if c.rank(positions) < 2 && length != 1 => {
            let steps =
                c.constant("steps", Tensor::from_i64([1, length], (0..length as i64).collect()));
            let first = c.indices(positions)?;
            let positions = c.binary("positions", Binary::Add, first, steps)?;
            c.step("angles", Op::Gather { axis: 0 }, &[cache, positions])?
        }
        Some(positions) => {
            let positions = c.indices(positions)?;
            c.step("angles", Op::Gather { axis: 0 }, &[cache, positions])?
        }
    };
    match *c.walk.shape(rows) {
        [n, l, half] if l == length => c.reshaped(rows, vec![n, 1, l, half]),
        [l, half] if l == length => c.reshaped(rows, vec![1, 1, l, half]),
        [l, half] if l > length => {
            let rows = c.part(rows, 0, 0, length, 1)?;
            c.reshaped(rows, vec![1, 1, length, half])
        }
        ref other => {
            Err(Problem::Form(format!("angles of shape {other:?} for {length} positions")))
        }
    }
}
