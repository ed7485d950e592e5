//! The layers of a Llama decoder, found by what its products read: queries, keys and values read one value, gate and up another, and each of the others
//! stands alone.

use super::constants::{Values, op};
use super::products::{Product, products, without_casts};
use super::{Declined, constants_of, shape_of};
use crate::family::declared;
use rockshard_onnx::Model;
use rockshard_onnx::schema::ValueInfoProto;
use rockshard_vlm::{DecoderShape, DecoderWriter, WeightBits};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Groups of products in a layer: into attention, out of it, into the gated layer, out of it.
const GROUPS: usize = 4;

/// A decoder in an export.
pub(super) struct Layers<'a> {
    pub shape: DecoderShape,
    values: Values<'a>,
    embeddings: Vec<f32>,
    groups: Vec<Vec<Product<'a>>>,
}

/// Find a decoder.
///
/// # Errors
/// What is not as in a Llama decoder.
pub(super) fn read_layers<'a>(
    embed: &Model,
    decoder: &'a Model,
    text: &Value,
) -> Result<Layers<'a>, String> {
    let graph = decoder.proto.graph.as_ref().ok_or("the decoder has no graph")?;
    let values = Values::new(decoder, graph);
    let mut groups: Vec<Vec<Product>> = Vec::new();
    let mut found: HashMap<&str, usize> = HashMap::new();
    for product in products(&values) {
        let at = *found.entry(product.input).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[at].push(product);
    }
    if groups.len() % GROUPS != 1 || groups.len() == 1 {
        return Err(format!(
            "{} values are multiplied by weights, which is no number of layers",
            groups.len()
        ));
    }
    let layers = groups.len() / GROUPS;
    let (kv_heads, head_width) = heads(&graph.input)?;
    let head = single(groups.last().map_or(&[], Vec::as_slice))?;
    let rows = |group: &[Product]| group.iter().map(|p| p.outputs).sum::<usize>();
    let keys = kv_heads * head_width;
    let queries =
        rows(&groups[0]).checked_sub(2 * keys).ok_or("queries, keys and values are too few")?;
    let (theta, epsilon) = constants_of(text)?;
    let shape = DecoderShape {
        layers,
        width: head.depth,
        heads: queries / head_width,
        kv_heads,
        head_width,
        inner: rows(&groups[2]) / 2,
        vocabulary: head.outputs,
        theta,
        epsilon,
    };
    let shape = shape_of(text, shape)?;
    let expected = [
        (shape.queries() + 2 * shape.keys(), shape.width),
        (shape.width, shape.queries()),
        (2 * shape.inner, shape.width),
        (shape.width, shape.inner),
    ];
    for (number, group) in groups[..GROUPS * layers].iter().enumerate() {
        let (outputs, depth) = expected[number % GROUPS];
        if rows(group) != outputs || group.iter().any(|p| p.depth != depth) {
            let found: Vec<_> = group.iter().map(|p| (p.outputs, p.depth)).collect();
            return Err(format!(
                "layer {}: weights of {found:?} instead of {outputs} by {depth}",
                number / GROUPS
            ));
        }
    }
    let embeddings = embeddings(embed, &shape)?;
    Ok(Layers { shape, values, embeddings, groups })
}

/// Heads of keys, and their width, as the first layer's past declares them.
fn heads(inputs: &[ValueInfoProto]) -> Result<(usize, usize), String> {
    let name = "past_key_values.0.key";
    let input = inputs.iter().find(|i| i.name.as_deref() == Some(name));
    let input = input.ok_or_else(|| format!("there is no {name:?}"))?;
    match declared(input).as_deref() {
        Some(&[_, Some(heads), _, Some(width)]) => Ok((heads, width)),
        _ => Err(format!("{name:?} does not say its heads and their width")),
    }
}

fn single<'g, 'a>(group: &'g [Product<'a>]) -> Result<&'g Product<'a>, String> {
    match group {
        [one] => Ok(one),
        _ => Err(format!("{} products read what one should", group.len())),
    }
}

/// The table of the embeddings' one look-up.
fn embeddings(embed: &Model, shape: &DecoderShape) -> Result<Vec<f32>, String> {
    let graph = embed.proto.graph.as_ref().ok_or("the embeddings have no graph")?;
    let values = Values::new(embed, graph);
    let gather = graph.node.iter().find(|node| op(node) == "Gather");
    let table = gather.and_then(|node| node.input.first()).ok_or("the embeddings are no table")?;
    let table = values.constant(table)?;
    if table.shape != [shape.vocabulary, shape.width] {
        let expected = [shape.vocabulary, shape.width];
        return Err(format!("the embeddings are {:?} instead of {expected:?}", table.shape));
    }
    Ok(table.values)
}

impl Layers<'_> {
    /// Write all weights.
    pub fn write(&self, to: &Path, bits: WeightBits) -> Result<(), Declined> {
        let mut writer = DecoderWriter::create(to, &self.shape, bits)?;
        writer.embeddings(&self.embeddings)?;
        for layer in 0..self.shape.layers {
            let [into, out, gated, down] = [0, 1, 2, 3].map(|g| &self.groups[GROUPS * layer + g]);
            let name = |part: &str| format!("layers.{layer}.{part}");
            writer.norm(&name("attention_norm"), &self.norm(into)?)?;
            writer.matrix(
                &name("qkv"),
                &self.joined(&self.attention(layer, into)?)?,
                self.shape.width,
            )?;
            writer.matrix(&name("output"), &self.joined(&[single(out)?])?, self.shape.queries())?;
            writer.norm(&name("feed_norm"), &self.norm(gated)?)?;
            writer.matrix(
                &name("gate_up"),
                &self.joined(&self.gate_first(gated))?,
                self.shape.width,
            )?;
            writer.matrix(&name("down"), &self.joined(&[single(down)?])?, self.shape.inner)?;
            self.values.release_pages();
        }
        let head = &self.groups[GROUPS * self.shape.layers];
        writer.norm("norm", &self.norm(head)?)?;
        writer.matrix("head", &self.joined(&[single(head)?])?, self.shape.width)?;
        Ok(writer.finish()?)
    }

    fn joined(&self, products: &[&Product]) -> Result<Vec<f32>, String> {
        let weights = products.iter().map(|p| p.weights(&self.values));
        Ok(weights.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Queries, keys and values in this order: values are what `present.N.value` comes from, keys what `present.N.key` does.
    fn attention<'p>(
        &self,
        layer: usize,
        group: &'p [Product],
    ) -> Result<Vec<&'p Product<'p>>, String> {
        let [_, _, _] = group else {
            return Ok(vec![single(group)?]);
        };
        let among: HashMap<&str, usize> =
            group.iter().zip(0..).map(|(p, i)| (p.node.output[0].as_str(), i)).collect();
        let find = |kind: &str, place: usize| {
            let present = format!("present.{layer}.{kind}");
            let from = match self.values.producer(&present) {
                // Operators that do all of attention take queries, keys and values as their first inputs.
                Some(node) if op(node).ends_with("Attention") => {
                    node.input.get(place).map(String::as_str)
                }
                _ => Some(present.as_str()),
            };
            from.and_then(|from| self.before(from, &among)).ok_or(present)
        };
        let lost = |present: String| format!("{present:?} comes from none of the layer's products");
        let keys = find("key", 1).map_err(lost)?;
        let values = find("value", 2).map_err(lost)?;
        let queries = (0..3).find(|i| *i != keys && *i != values);
        let queries = queries.filter(|_| keys != values).ok_or("keys and values are one")?;
        Ok(vec![&group[queries], &group[keys], &group[values]])
    }

    /// The product among these that a value comes from.
    fn before(&self, value: &str, among: &HashMap<&str, usize>) -> Option<usize> {
        let mut seen = HashSet::new();
        let mut open = vec![value.to_owned()];
        while let Some(value) = open.pop() {
            if let Some(&found) = among.get(value.as_str()) {
                return Some(found);
            }
            if let Some(node) = self.values.producer(&value)
                && seen.insert(value)
            {
                open.extend(node.input.iter().filter(|i| !i.is_empty()).cloned());
            }
        }
        None
    }

    /// The gate, which goes through a sigmoid, before the other.
    fn gate_first<'p>(&self, group: &'p [Product]) -> Vec<&'p Product<'p>> {
        let mut products: Vec<&Product> = group.iter().collect();
        let gates = |p: &&Product| {
            let mut values = vec![p.node.output[0].as_str()];
            let mut at = 0;
            while let Some(value) = values.get(at).copied() {
                for node in self.values.consumers(value) {
                    match op(node) {
                        "Sigmoid" | "Silu" | "Swish" | "QuickGelu" => return false,
                        "Cast" | "Identity" => {
                            values.extend(node.output.first().map(String::as_str))
                        }
                        _ => {}
                    }
                }
                at += 1;
            }
            true
        };
        products.sort_by_key(gates);
        products
    }

    /// The weights of the norm whose output a group reads.
    fn norm(&self, group: &[Product]) -> Result<Vec<f32>, String> {
        let read = group.first().map_or("", |p| p.input);
        let mut value = read;
        let lost = || format!("{read:?} comes from no norm");
        // Of the last token, or of all.
        loop {
            let node = self.values.producer(value).ok_or_else(lost)?;
            let weights = match op(node) {
                "Mul" => node.input.iter().find(|i| self.values.shape(i).is_some()),
                "SimplifiedLayerNormalization" | "RMSNormalization" => node.input.get(1),
                "SkipSimplifiedLayerNormalization" => node.input.get(2),
                "Gather" | "Slice" | "Reshape" | "Squeeze" | "Unsqueeze" => {
                    value = without_casts(&self.values, node.input.first().ok_or_else(lost)?);
                    continue;
                }
                _ => None,
            };
            let weights = self.values.constant(weights.ok_or_else(lost)?)?.values;
            return if weights.len() == self.shape.width { Ok(weights) } else { Err(lost()) };
        }
    }
}
