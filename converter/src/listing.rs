//! Graphs in text: what passes start from, and what they leave in a pack's shards.

use crate::family::Source;
use crate::part::{import, in_part};
use crate::{ConvertError, Fixed};
use rockshard_device::Device;
use std::path::Path;

/// A model's or a shard's file, or the networks of a directory one after the other, in text: a line a node, in running order. What the NPU's
/// compiler makes one operator is one line; no pass has run.
///
/// # Errors
/// The files are no model that can be read, or leave an extent open that is not fixed.
pub fn list_graph(
    path: &Path,
    fixed: &Fixed,
    reference: &dyn Device,
) -> Result<String, ConvertError> {
    let mut source = Source::open(path, &[], 1)?;
    source.fix(fixed)?;
    let lines = source.parts.iter().map(|part| {
        let mut graph = import(part, Some(reference))?.graph;
        rockshard_import::fuse(&mut graph, None).map_err(in_part(part))?;
        Ok(graph.to_string())
    });
    Ok(lines.collect::<Result<Vec<_>, ConvertError>>()?.join("\n\n"))
}
