//! Operators of ONNX Runtime's own domain that exported models hold.

use crate::attention::{Attention, added, behind, count, heads_first, heads_last, rotary, turned};
use crate::operators::Context;
use crate::{Problem, is_quantised, norm};
use rockshard_graph::{Binary, Op, ValueId};
use rockshard_onnx::{BlockLayout, BlockWeights, ZeroPoints};
use rockshard_tensor::Tensor;

pub(crate) const DOMAIN: &str = "com.microsoft";

pub(crate) fn import(c: &mut Context<'_, '_>, op: &str) -> Result<(), Problem> {
    match op {
        "SimplifiedLayerNormalization" => {
            let (x, gamma) = (c.input(0)?, c.input(1)?);
            let out = norm::rms_norm(c, x, gamma, 1e-5)?;
            c.alias(out)
        }
        "SkipLayerNormalization" => skip_norm(c, false),
        "SkipSimplifiedLayerNormalization" => skip_norm(c, true),
        "Gelu" | "BiasGelu" => biased(c, Op::Gelu { tanh: false }),
        "FastGelu" => biased(c, Op::Gelu { tanh: true }),
        "QuickGelu" => {
            let (x, beta) = (c.input(0)?, c.attributes.float("alpha", 1.702));
            c.finish(Op::Swish { beta }, &[x])
        }
        "FusedMatMul" => fused_matmul(c),
        "MatMulNBits" => matmul_n_bits(c),
        "RotaryEmbedding" => rotary(c, [0, 2, 3, 1]),
        "MultiHeadAttention" => multi_head(c),
        "GroupQueryAttention" => group_query(c),
        _ if is_quantised(op) => Err(Problem::Quantised),
        _ => Err(Problem::Optimised),
    }
}

/// A norm of the sum of two values, which is the fourth output.
fn skip_norm(c: &mut Context<'_, '_>, simplified: bool) -> Result<(), Problem> {
    let (x, skip, gamma) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let mut sum = c.binary("sum", Binary::Add, x, skip)?;
    if let Some(bias) = c.optional(if simplified { 3 } else { 4 }) {
        sum = c.binary("biased", Binary::Add, sum, bias)?;
    }
    if (1..3).any(|i| c.has_output(i)) {
        return Err(Problem::Form("its mean and deviation as outputs are not supported".into()));
    }
    c.bind_output(3, sum);
    let out = if simplified {
        norm::rms_norm(c, sum, gamma, 1e-12)?
    } else {
        let beta = c.optional(3);
        norm::layer_norm(c, sum, gamma, beta)?
    };
    c.alias(out)
}

/// An activation of a value with a bias.
fn biased(c: &mut Context<'_, '_>, op: Op) -> Result<(), Problem> {
    let mut x = c.input(0)?;
    if let Some(bias) = c.optional(1) {
        x = c.binary("biased", Binary::Add, x, bias)?;
    }
    c.finish(op, &[x])
}

fn fused_matmul(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (mut a, mut b) = (c.input(0)?, c.input(1)?);
    if ["transBatchA", "transBatchB"].iter().any(|name| c.attributes.int(name, 0) != 0) {
        return Err(Problem::Form("transposed batches are not supported".into()));
    }
    for (value, name) in [(&mut a, "transA"), (&mut b, "transB")] {
        let rank = c.rank(*value);
        if c.attributes.int(name, 0) != 0 && rank >= 2 {
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.swap(rank - 2, rank - 1);
            *value = c.transposed(*value, perm)?;
        }
    }
    match c.attributes.float("alpha", 1.0) {
        1.0 => c.finish(Op::MatMul, &[a, b]),
        alpha => {
            let product = c.step("product", Op::MatMul, &[a, b])?;
            let alpha = c.filled(&[], alpha)?;
            c.finish(Op::Binary(Binary::Mul), &[product, alpha])
        }
    }
}

/// A product by a weight of a few bits a value, with a scale and a zero point a block of each column.
fn matmul_n_bits(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (x, packed, scales) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let (depth, columns) = (count(c, "K"), count(c, "N"));
    if c.optional(4).is_some() {
        return Err(Problem::Form("g_idx is not supported".into()));
    }
    let layout = BlockLayout {
        bits: c.attributes.int("bits", 4).clamp(0, 64) as usize,
        block: count(c, "block_size"),
        depth,
        outputs: columns,
    };
    c.walk.spend(depth.saturating_mul(columns))?;
    let zeros = match c.optional(3) {
        None => ZeroPoints::Middle,
        Some(id) if c.walk.value(id).dtype.is_float() => ZeroPoints::Real(real(c, id)?),
        Some(id) => ZeroPoints::Packed(small(c, id)?),
    };
    let blocks = BlockWeights::new(layout, small(c, packed)?, real(c, scales)?, zeros);
    let blocks = blocks.map_err(Problem::Form)?;
    let inputs = 0..depth;
    let weight = inputs.flat_map(|k| (0..columns).map(move |column| (column, k)));
    let weight = weight.map(|(column, k)| blocks.get(column, k)).collect();
    c.walk.note_dequantised(&layout);
    let weight = c.constant("weight", Tensor::from_f32([depth, columns], weight));
    match c.optional(5) {
        None => c.finish(Op::MatMul, &[x, weight]),
        Some(bias) => {
            let product = c.step("product", Op::MatMul, &[x, weight])?;
            c.finish(Op::Binary(Binary::Add), &[product, bias])
        }
    }
}

/// The bytes of a constant.
fn small(c: &Context<'_, '_>, id: ValueId) -> Result<Vec<u8>, Problem> {
    let tensor = c.walk.constant(id).ok_or(Problem::DataDependent("a packed weight"))?;
    let whole = tensor.to_i64().map_err(|e| Problem::Form(e.to_string()))?;
    Ok(whole.iter().map(|&v| v as u8).collect())
}

fn real(c: &Context<'_, '_>, id: ValueId) -> Result<Vec<f32>, Problem> {
    let tensor = c.walk.constant(id).ok_or(Problem::DataDependent("a packed weight's scale"))?;
    tensor.to_f32().map(|v| v.into_owned()).map_err(|e| Problem::Form(e.to_string()))
}

/// Queries, keys and values side by side, with a bias for all three.
fn multi_head(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let heads = count(c, "num_heads");
    if c.optional(8).is_some() || c.optional(9).is_some() {
        return Err(Problem::Form("a shared cache is not supported".into()));
    }
    let mut values = vec![c.input(0)?];
    for i in 1..3 {
        let missing = || Problem::Form("packed queries, keys and values are not supported".into());
        values.push(c.optional(i).ok_or_else(missing)?);
    }
    if let Some(bias) = c.optional(3) {
        let mut at = 0;
        for value in &mut values {
            let width = c.walk.shape(*value).last().copied().unwrap_or(0);
            if c.rank(*value) != 3 || at + width > c.walk.value(bias).count() {
                return Err(Problem::Form("a bias for keys of four axes is not supported".into()));
            }
            let part = c.part(bias, 0, at, at + width, 1)?;
            at += width;
            *value = c.binary("biased", Binary::Add, *value, part)?;
        }
    }
    let mut apart = Vec::new();
    for value in values {
        apart.push(heads_first(c, value, heads)?);
    }
    let (past_k, past_v) = (c.optional(6), c.optional(7));
    let (k, past) = behind(c, past_k, apart[1])?;
    let (v, _) = behind(c, past_v, apart[2])?;
    c.bind_output(1, k);
    c.bind_output(2, v);
    let mut mask = c.optional(5);
    if let Some(padding) = c.optional(4) {
        let padding = key_padding(c, padding)?;
        mask = Some(match mask {
            Some(mask) => c.binary("bias", Binary::Add, mask, padding)?,
            None => padding,
        });
    }
    let width = c.walk.shape(apart[0])[3].max(1) as f32;
    let lowered = Attention {
        q: apart[0],
        k,
        v,
        mask,
        scale: scale(c, width),
        softcap: 0.0,
        first: past,
        seen: [None, (c.attributes.int("unidirectional", 0) != 0).then_some(0)],
    };
    let (result, _) = lowered.lower(c, None)?;
    let result = heads_last(c, result)?;
    c.alias(result)
}

fn scale(c: &Context<'_, '_>, width: f32) -> f32 {
    match c.attributes.float("scale", 0.0) {
        0.0 => 1.0 / width.sqrt(),
        scale => scale,
    }
}

/// Which keys there are, 1 or 0, `[B,S]` or `[B,L,S]`, as a mask of the scores.
fn key_padding(c: &mut Context<'_, '_>, mask: ValueId) -> Result<ValueId, Problem> {
    let shape = match *c.walk.shape(mask) {
        [n, keys] => vec![n, 1, 1, keys],
        [n, rows, keys] => vec![n, 1, rows, keys],
        ref other => {
            return Err(Problem::Form(format!(
                "a padding mask of shape {other:?} is not supported"
            )));
        }
    };
    let mask = c.step("there", Op::Cast(rockshard_tensor::DType::Bool), &[mask])?;
    let mask = c.reshaped(mask, shape)?;
    added(c, mask)
}

/// Fewer heads of keys than of queries, with a cache; all of a cache of the given length counts.
fn group_query(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (heads, groups) = (count(c, "num_heads"), count(c, "kv_num_heads"));
    if c.optional(9).is_some() || c.optional(10).is_some() || c.optional(11).is_some() {
        return Err(Problem::Form("positions, a bias or sinks as inputs are not supported".into()));
    }
    let query = c.input(0)?;
    let (query, key, value) = match (c.optional(1), c.optional(2)) {
        (Some(key), Some(value)) => (query, key, value),
        _ => unpacked(c, query, heads, groups)?,
    };
    let mut q = heads_first(c, query, heads)?;
    let (mut k, v) = (heads_first(c, key, groups)?, heads_first(c, value, groups)?);
    let past = c.optional(3).map_or(0, |p| c.walk.shape(p).get(2).copied().unwrap_or(0));
    if c.attributes.int("do_rotary", 0) != 0 {
        let cache = [c.input(7)?, c.input(8)?];
        let interleaved = c.attributes.int("rotary_interleaved", 0) != 0;
        let length = c.walk.shape(q)[2];
        let places = (past as i64..).take(length).collect();
        let positions = c.constant("positions", Tensor::from_i64([1, length], places));
        let part = c.walk.shape(cache[0]).last().map_or(0, |half| 2 * half);
        q = turned(c, q, cache, Some(positions), interleaved, part)?;
        k = turned(c, k, cache, Some(positions), interleaved, part)?;
    }
    let (past_k, past_v) = (c.optional(3), c.optional(4));
    let (k, _) = behind(c, past_k, k)?;
    let (v, _) = behind(c, past_v, v)?;
    c.bind_output(1, k);
    c.bind_output(2, v);
    let width = c.walk.shape(q)[3].max(1) as f32;
    let lowered = Attention {
        q,
        k,
        v,
        mask: None,
        scale: scale(c, width),
        softcap: c.attributes.float("softcap", 0.0),
        first: past,
        // The window counts the own place.
        seen: [Some(c.attributes.int("local_window_size", -1) - 1).filter(|&n| n >= 0), Some(0)],
    };
    let (result, _) = lowered.lower(c, None)?;
    let result = heads_last(c, result)?;
    c.alias(result)
}

/// Queries, keys and values that lie in one tensor.
fn unpacked(
    c: &mut Context<'_, '_>,
    packed: ValueId,
    heads: usize,
    groups: usize,
) -> Result<(ValueId, ValueId, ValueId), Problem> {
    let all = c.walk.shape(packed).last().copied().unwrap_or(0);
    let width = all / heads.saturating_add(groups.saturating_mul(2)).max(1);
    let (first, second) = (heads * width, heads.saturating_add(groups) * width);
    let axis = c.rank(packed).saturating_sub(1);
    let q = c.part(packed, axis, 0, first, 1)?;
    let k = c.part(packed, axis, first, second, 1)?;
    Ok((q, k, c.part(packed, axis, second, all, 1)?))
}
