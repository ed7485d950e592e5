//! `docs/patterns.md` shows what the converter does: every block of graph in it is made here, from small models. After a change that is meant,
//! `ROCKSHARD_REGENERATE=1 cargo test -p rockshard --test patterns` writes the blocks anew.

mod models;

use models::pattern;
use rockshard::{ConvertRequest, Fixed, Manifest, Sandwich, Shards, Tensor, Tile, list_graph};
use std::collections::BTreeMap;
use std::ops::ControlFlow::Continue;
use std::path::{Path, PathBuf};

/// Before a block that is shown, followed by its name.
const MARK: &str = "<!-- shown: ";
const OPENING: &str = " -->\n```text";
const CLOSING: &str = "\n```";

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/patterns.md")
}

/// Texts by the name that the document has for them.
#[derive(Default)]
struct Shown(BTreeMap<String, String>);

impl Shown {
    fn enter(&mut self, name: String, text: String) {
        assert!(self.0.insert(name.clone(), text).is_none(), "{name} is made twice");
    }

    /// Enter the parts of a text that was made, between separators, that are about one piece.
    fn excerpt(&mut self, of: &str, separator: &str, piece: &str, name: &str) {
        let parts: Vec<&str> = self.0[of].split(separator).filter(|p| p.contains(piece)).collect();
        self.enter(name.into(), parts.join(separator));
    }

    /// Convert a model in a request that `choose` made of the usual one; enters its graph before, and after, shard by shard. Gives the manifest.
    fn convert(
        &mut self,
        name: &str,
        make: impl Fn(&Path) -> PathBuf,
        choose: impl Fn(ConvertRequest) -> ConvertRequest,
    ) -> Manifest {
        let folder = tempfile::tempdir().unwrap();
        let (model, pack) = (make(folder.path()), folder.path().join("pack"));
        self.enter(format!("{name} before"), listed(&model));
        let usual = ConvertRequest { sandwich: Sandwich::Off, ..ConvertRequest::new(model, &pack) };
        let manifest = rockshard::convert(choose(usual), &mut |_| Continue(())).unwrap();
        let shards = &manifest.models[0].shards;
        let titled = |shard: &rockshard::Shard| {
            let graph = listed(&pack.join(&shard.file));
            if shards.len() == 1 {
                graph
            } else {
                format!("{} ({})\n{graph}", shard.name, shard.core)
            }
        };
        let after: Vec<String> = shards.iter().map(titled).collect();
        self.enter(format!("{name} after"), after.join("\n\n"));
        manifest
    }
}

fn listed(file: &Path) -> String {
    list_graph(file, &Fixed::default()).unwrap()
}

/// What the document's program prints of a manifest.
fn told(manifest: &Manifest) -> String {
    let mut lines = Vec::new();
    for model in &manifest.models {
        lines.extend(model.passes.iter().cloned());
        for shard in &model.shards {
            lines.push(format!(
                "{}: {}, {:.0} us modelled",
                shard.name, shard.core, shard.modelled.micros
            ));
            for region in &shard.sandwich {
                let [first, last] = &region.nodes;
                lines.push(format!(
                    "  {first} to {last}: times {}, for {}",
                    region.factor, region.worst_value
                ));
            }
            for attention in &shard.attention {
                lines.push(format!("  attention {:?}: {}", attention.shape, attention.lowering));
            }
        }
        lines.extend(model.declined.iter().map(|line| format!("declined: {line}")));
    }
    lines.join("\n")
}

/// Tokens of ordinary size, but for one channel that is beyond float16.
fn outliers() -> Tensor {
    const CHANNEL: usize = 3;
    let values = pattern(&[1, 16, 8]);
    let grown = |(i, v): (usize, &f32)| if i % 8 == CHANNEL { v * 2e5 } else { *v };
    Tensor::from_f32([1, 16, 8], values.to_f32().unwrap().iter().enumerate().map(grown).collect())
}

fn all() -> BTreeMap<String, String> {
    let mut shown = Shown::default();
    let sandwiched = shown.convert("sandwich", models::feed_forward, |request| {
        let sample = [("x".to_owned(), outliers())].into();
        let calibration = [("model".to_owned(), vec![sample])].into();
        ConvertRequest { sandwich: Sandwich::Auto, calibration, ..request }
    });
    shown.enter("sandwich told".into(), told(&sandwiched));
    let unmasked = |folder: &Path| models::attention(folder, false);
    shown.convert("rows", unmasked, |request| ConvertRequest { tile: Tile::Rows(8), ..request });
    shown
        .convert("grid", unmasked, |request| ConvertRequest { tile: Tile::Grid(16, 8), ..request });
    shown.excerpt("grid after", "\n", "grid0x1", "grid second");
    let heads = shown.convert("heads", unmasked, |request| ConvertRequest {
        tile: Tile::Heads,
        shards: Shards::Layer,
        ..request
    });
    shown.enter("heads told".into(), told(&heads));
    shown.excerpt("heads after", "\n\n", "-02-", "heads second");
    let cut = shown.convert("shards", models::layer, |request| ConvertRequest {
        shards: Shards::Layer,
        ..request
    });
    shown.enter("shards told".into(), told(&cut));
    let whole = shown.convert("whole", models::layer, |request| request);
    shown.enter("whole told".into(), told(&whole));
    shown.convert("mask", |folder| models::attention(folder, true), |request| request);
    shown.convert("blocks", models::connector, |request| request);
    shown.convert("bands", models::long, |request| request);
    shown.0
}

/// The document with its blocks replaced by those that were made, and the names of its blocks.
fn filled(text: &str, made: &BTreeMap<String, String>) -> (String, Vec<String>) {
    let mut pieces = text.split(MARK);
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    let mut names = Vec::new();
    for piece in pieces {
        let (name, rest) = piece.split_once(OPENING).expect("a fenced block after its mark");
        let (_, rest) = rest.split_once(CLOSING).expect("the block ends");
        let block = made.get(name).unwrap_or_else(|| panic!("nothing is called {name:?}"));
        filled += &format!("{MARK}{name}{OPENING}\n{block}{CLOSING}{rest}");
        names.push(name.to_owned());
    }
    (filled, names)
}

#[test]
fn the_document_shows_what_the_converter_does() {
    let text = std::fs::read_to_string(document()).unwrap();
    let made = all();
    let (filled, names) = filled(&text, &made);
    assert!(names.len() > 10, "{names:?}");
    if std::env::var_os("ROCKSHARD_REGENERATE").is_some() {
        std::fs::write(document(), filled).unwrap();
        return;
    }
    for (line, (found, expected)) in text.lines().zip(filled.lines()).enumerate() {
        assert_eq!(found, expected, "docs/patterns.md:{}", line + 1);
    }
    assert_eq!(text, filled);
}
