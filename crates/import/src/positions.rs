//! Position ids of a picture's patches, as an exporter computed them.
//!
//! NaViT-style encoders place each patch by `bucketize(i / n * (1 - 1e-6), [1/n, 2/n, ...])`. In float32 that product lies below the
//! boundary `i / n` that it should reach, so that rows and columns come out as 0, 0, 1, ..., n-2 instead of 0, 1, 2, ..., n-1.

use crate::operators::Context;
use crate::{Note, Problem};
use rockshard_graph::ValueId;
use rockshard_tensor::Tensor;

/// Fewest patches on a side for which the ids tell the damage from a choice of somebody's.
const FEWEST: usize = 3;
/// What exporters call a table of positions.
const TABLE: &str = "position_embedding";

/// The ids that a look-up in a table of positions takes: those given, or 0, 1, 2, ... where these are damaged in the way that is known.
///
/// # Errors
/// There are more ids than a model of this size may have looked at.
pub(crate) fn repaired(
    c: &mut Context<'_, '_>,
    table: ValueId,
    ids: ValueId,
) -> Result<ValueId, Problem> {
    let Some(count) = places(c, table) else { return Ok(ids) };
    let Some(tensor) = c.walk.constant(ids).cloned() else { return Ok(ids) };
    let shape = tensor.shape().to_vec();
    if shape.last() != Some(&count) || tensor.is_empty() {
        return Ok(ids);
    }
    c.walk.spend(tensor.len())?;
    let Ok(given) = tensor.to_i64() else { return Ok(ids) };
    let side = count.isqrt();
    let whole = |ids: &[i64]| (0..).zip(ids).all(|(at, &id)| id == at);
    let damaged = |ids: &[i64]| {
        let low = |at: usize| at.saturating_sub(1);
        let id = |at: usize| low(at / side) * side + low(at % side);
        ids.iter().enumerate().all(|(at, &given)| usize::try_from(given) == Ok(id(at)))
    };
    let pictures = given.chunks(count);
    if pictures.clone().all(damaged) {
        let ids = (0..given.len()).map(|at| (at % count) as i64).collect();
        let (node, output) = (c.name.clone(), c.output.to_owned());
        c.walk.notes.push(Note::PositionIds { node, output, shape: shape.clone() });
        return Ok(c.constant("positions", Tensor::from_i64(shape, ids)));
    }
    if !pictures.clone().all(whole) && c.walk.value(table).name.contains(TABLE) {
        c.walk.notes.push(Note::OtherPositionIds { node: c.name.clone() });
    }
    Ok(ids)
}

/// Places of a table that has a row for each patch of a square picture.
fn places(c: &Context<'_, '_>, table: ValueId) -> Option<usize> {
    let &[count, _] = c.walk.shape(table) else { return None };
    let side = count.isqrt();
    (c.walk.constant(table).is_some() && side >= FEWEST && side * side == count).then_some(count)
}
