//! What is refused before anything is calibrated or written, because shapes alone tell: sizes that a network cannot have, and axes that the
//! NPU has no room for.

use crate::error::ConvertError;
use crate::family::Part;
use crate::part::{import, in_part, label};
use crate::partition::host_nodes;
use crate::passes::{PartContext, fit_part};
use crate::{ConvertRequest, family::Source};
use rockshard_device::Device;
use std::path::Path;

/// Most halvings that a network is asked about.
const MOST_HALVINGS: u32 = 6;

/// Refuse what shapes alone refuse.
///
/// # Errors
/// A part cannot be read, cannot have its size, or has an axis that is too long even in bands.
pub(crate) fn check(
    request: &ConvertRequest,
    source: &Source,
    reference: &dyn Device,
) -> Result<(), ConvertError> {
    for part in &source.parts {
        let read = import(part, Some(reference)).map_err(|error| match part.resolution {
            Some(size) => {
                let parts: Vec<&Part> =
                    source.parts.iter().filter(|p| p.resolution == Some(size)).collect();
                let covered = parts.iter().map(|p| covered(p)).max().unwrap_or(1);
                refusal(&request.source, size, &parts, covered).unwrap_or(error)
            }
            None => error,
        })?;
        let mut context = PartContext {
            part: &part.name,
            chip: &request.chip,
            placement: request.placement,
            tile: request.tile,
            store: &mut Ok,
            import_failed: &in_part(part),
            segments: None,
            unchanged_us: None,
        };
        let (graph, _) = fit_part(read.graph, &mut context)?;
        let host = host_nodes(&graph);
        let nodes: Vec<_> = graph.node_ids().filter(|id| !host.contains(id)).collect();
        let npu = graph.subgraph(label(part), &nodes, &[]);
        if let Some(source) = request.chip.long_axes(&npu).into_iter().next() {
            return Err(ConvertError::Limit { shard: label(part), source });
        }
    }
    Ok(())
}

/// Why a picture's size cannot be had, where sizes that some of the parts take differ from it; `covered` is the pixels of a latent value.
pub(crate) fn refusal(
    path: &Path,
    [width, height]: [u32; 2],
    parts: &[&Part],
    covered: u32,
) -> Option<ConvertError> {
    let steps = parts.iter().map(|part| Some((step(part, covered)?, part.name.as_str())));
    let steps = steps.collect::<Option<Vec<_>>>()?;
    let &(step, name) = steps.iter().rev().max_by_key(|(step, _)| *step)?;
    if width.is_multiple_of(step) && height.is_multiple_of(step) {
        return None;
    }
    let down = |side: u32| (side / step * step).max(step);
    let up = |side: u32| side.div_ceil(step) * step;
    let problem = format!(
        "resolution {width}x{height}: {name} needs width and height divisible by {step}; the nearest sizes are {}x{} and {}x{}",
        down(width),
        down(height),
        up(width),
        up(height)
    );
    Some(ConvertError::Source { path: path.to_owned(), problem })
}

/// Pixels that a value of the part's inputs covers.
fn covered(part: &Part) -> u32 {
    let Some([_, height]) = part.resolution else { return 1 };
    let planes = part.shapes.iter().filter(|(_, shape)| shape.len() == 4);
    let covered = planes.filter_map(|(_, shape)| height.checked_div(shape[2] as u32)).max();
    covered.unwrap_or(1).max(1)
}

/// What the sides of a part's picture must be divisible by: `covered` times the fewest halvings for which shapes fit each other at a size
/// with no more of them. What a network halves and does not double again counts for nothing.
fn step(part: &Part, covered: u32) -> Option<u32> {
    let [width, height] = part.resolution?;
    let steps = (0..=MOST_HALVINGS).map(|halvings| covered << halvings);
    steps.into_iter().find(|&step| {
        // An odd number of steps, near the size that was asked for.
        let side = |asked: u32| (asked / step / 2 * 2 + 1) * step;
        import(&resized(part, [side(width), side(height)]), None).is_ok()
    })
}

/// A part at another size.
pub(crate) fn resized(part: &Part, size: [u32; 2]) -> Part {
    let mut other = part.clone();
    let Some([width, height]) = part.resolution else { return other };
    for (_, shape) in &mut other.shapes {
        let scaled = |extent: usize, to: u32, from: u32| extent * to as usize / from as usize;
        if let [_, _, .., rows, columns] = &mut shape[..] {
            *rows = scaled(*rows, size[1], height);
            *columns = scaled(*columns, size[0], width);
        }
    }
    other.resolution = Some(size);
    other
}
