//! Writes the table of operators that `tests/anchors.rs` prices: `cargo run --example operators -- FILE.onnx...`
//!
//! The files are the pieces of one model, in running order; the rows of equal operators are counted together. A row is
//! `COUNT OPERATOR INPUT... = OUTPUT EPILOGUE...`: extents joined by `x` (`.` for a scalar), constants behind `*`; an operator may carry
//! `:` and attributes (Conv: kernel, strides, group; Transpose: permutation; Slice: largest step); epilogues are `+bias`, `+OPERATOR` (an
//! activation) and `+residual`, which the compiler takes into the operator before them. The last row names the inputs and outputs of the
//! whole model.
#![allow(clippy::print_stdout)]

use rockshard_cost::layers;
use rockshard_graph::{Graph, Op, ValueId};
use rockshard_import::{ImportOptions, import_file};
use std::collections::BTreeSet;
use std::path::Path;

fn extents(shape: &[usize]) -> String {
    if shape.is_empty() {
        ".".into()
    } else {
        shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
    }
}

fn operator(op: &Op) -> String {
    let name = op.name();
    match op {
        Op::Conv { window, group } => {
            let ([kh, kw], [sh, sw]) = (window.kernel, window.strides);
            format!("{name}:{kh}x{kw}:{sh}x{sw}:{group}")
        }
        Op::Transpose { perm } => format!("{name}:{}", extents(perm)),
        Op::Slice { step, .. } => format!("{name}:{}", step.iter().max().unwrap_or(&1)),
        _ => name.into(),
    }
}

fn boundary(
    graphs: &[Graph],
    side: impl Fn(&Graph) -> &[ValueId],
    other: impl Fn(&Graph) -> &[ValueId],
) -> String {
    let name = |g: &Graph, v: ValueId| g.value(v).name.clone();
    let inside: BTreeSet<String> =
        graphs.iter().flat_map(|g| other(g).iter().map(move |&v| name(g, v))).collect();
    let mut seen = BTreeSet::new();
    let ends = graphs.iter().flat_map(|g| side(g).iter().map(move |&v| (g, v)));
    let ends = ends.filter(|&(g, v)| !inside.contains(&name(g, v)) && seen.insert(name(g, v)));
    ends.map(|(g, v)| extents(&g.value(v).shape)).collect::<Vec<_>>().join(" ")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        return Err("usage: operators FILE.onnx...".into());
    }
    let graphs = files
        .iter()
        .map(|f| import_file(Path::new(f), &ImportOptions::fixed()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut rows: Vec<(String, usize)> = Vec::new();
    for graph in &graphs {
        let value = |v: ValueId| {
            format!(
                "{}{}",
                if graph.constant(v).is_some() { "*" } else { "" },
                extents(&graph.value(v).shape)
            )
        };
        for layer in layers(graph) {
            let node = graph.node(layer.node);
            let inputs: Vec<String> = node.inputs.iter().map(|&v| value(v)).collect();
            let mut row = format!(
                "{} {} = {}",
                operator(&node.op),
                inputs.join(" "),
                extents(&graph.value(node.output).shape)
            );
            if layer.bias.is_some() {
                row += " +bias";
            }
            if let Some(id) = layer.activation {
                row = format!("{row} +{}", graph.node(id).op.name());
            }
            if layer.residual.is_some() {
                row += " +residual";
            }
            match rows.iter_mut().find(|(r, _)| *r == row) {
                Some((_, count)) => *count += 1,
                None => rows.push((row, 1)),
            }
        }
    }
    for (row, count) in rows {
        println!("{count} {row}");
    }
    println!(
        "model {} = {}",
        boundary(&graphs, |g| &g.inputs, |g| &g.outputs),
        boundary(&graphs, |g| &g.outputs, |g| &g.inputs)
    );
    Ok(())
}
