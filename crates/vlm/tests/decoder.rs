//! `decoder.safetensors`: what was written is read, in every precision and at odd sizes, and nothing else is.

use rockshard_vlm::{
    DECODER_FILE, DecoderShape, DecoderWriter, LanguageModel, Session, WeightBits,
};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Odd where it may be, so that nothing is aligned by luck.
const ODD: DecoderShape = DecoderShape {
    layers: 2,
    width: 33,
    heads: 6,
    kv_heads: 2,
    head_width: 6,
    inner: 35,
    vocabulary: 51,
    theta: 10_000.0,
    epsilon: 1e-5,
};
const BLOCKS: DecoderShape = DecoderShape { width: 64, heads: 4, head_width: 16, inner: 96, ..ODD };
const ALL: [WeightBits; 3] = [WeightBits::ThirtyTwo, WeightBits::Eight, WeightBits::Four];

/// Values that vary, of the spread that keeps magnitudes through a layer.
fn values(count: usize, depth: usize, seed: usize) -> Vec<f32> {
    let value = |at: usize| ((at * 37 + seed * 101) % 1009) as f32 / 504.5 - 1.0;
    (0..count).map(|at| value(at) * (3.0 / depth as f32).sqrt()).collect()
}

fn write(folder: &Path, shape: &DecoderShape, bits: WeightBits) {
    let mut writer = DecoderWriter::create(&folder.join(DECODER_FILE), shape, bits).unwrap();
    let (width, projected) = (shape.width, shape.queries() + 2 * shape.keys());
    writer.embeddings(&values(shape.vocabulary * width, 3, 0)).unwrap();
    for layer in 0..shape.layers {
        let name = |part: &str| format!("layers.{layer}.{part}");
        for norm in ["attention_norm", "feed_norm"] {
            writer.norm(&name(norm), &vec![1.0; width]).unwrap();
        }
        for (part, outputs, depth) in [
            ("qkv", projected, width),
            ("output", width, shape.queries()),
            ("gate_up", 2 * shape.inner, width),
            ("down", width, shape.inner),
        ] {
            let seed = layer * 7 + outputs;
            writer.matrix(&name(part), &values(outputs * depth, depth, seed), depth).unwrap();
        }
    }
    writer.norm("norm", &vec![1.0; width]).unwrap();
    writer.matrix("head", &values(shape.vocabulary * width, width, 5), width).unwrap();
    writer.finish().unwrap();
}

/// Logits behind five tokens at once, and behind one more.
fn logits(folder: &Path) -> Vec<f32> {
    let model = Arc::new(LanguageModel::open(folder, 64, Some(2)).unwrap());
    let mut session = Session::new(model.clone());
    let mut all = session.feed(&model.embed(&[3, 1, 4, 1, 50]).unwrap()).unwrap();
    all.extend(session.feed(&model.embed(&[9]).unwrap()).unwrap());
    all
}

#[test]
fn every_precision_reads_back() {
    for shape in [ODD, BLOCKS] {
        let of = |bits| {
            let folder = TempDir::new().unwrap();
            write(folder.path(), &shape, bits);
            logits(folder.path())
        };
        let [whole, eight, four] = ALL.map(of);
        let apart = |found: &[f32]| {
            let square = |v: f32| f64::from(v).powi(2);
            let difference: f64 = found.iter().zip(&whole).map(|(a, b)| square(a - b)).sum();
            (difference / whole.iter().map(|&v| square(v)).sum::<f64>()).sqrt()
        };
        assert!(apart(&eight) > 0.0 && apart(&eight) < 0.05, "{}", apart(&eight));
        assert!(apart(&four) < 0.3, "{}", apart(&four));
        // Where no row is a number of blocks, 4 bits are 8.
        assert_eq!(apart(&four) == apart(&eight), shape == ODD);
    }
}

#[test]
fn a_damaged_file_is_refused() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), &BLOCKS, WeightBits::Four);
    let path = folder.path().join(DECODER_FILE);
    let whole = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8;
    let opened = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        LanguageModel::open(folder.path(), 64, Some(1)).map(drop)
    };
    let ends = (0..header).step_by(97).chain([header, whole.len() / 2, whole.len() - 1]);
    for end in ends {
        let error = opened(&whole[..end]).unwrap_err().to_string();
        assert!(error.contains(DECODER_FILE), "{error}");
    }
    // Any byte of the header: another name, type, shape or place is refused, or it was a space.
    for at in (0..header).step_by(13) {
        let mut changed = whole.clone();
        changed[at] ^= 0x11;
        let _ = opened(&changed);
    }
    let text = String::from_utf8_lossy(&whole[8..header]).into_owned();
    for (from, to, said) in [
        ("\\\"layers\\\":2", "\\\"layers\\\":3", "there is no \"layers.2"),
        ("\\\"kv_heads\\\":2", "\\\"kv_heads\\\":3", "4 heads cannot share 3"),
        ("\\\"width\\\":64", "\\\"width\\\":65", "instead of"),
        ("\\\"inner\\\":96", "\\\"inner\\\":00", ""),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let bytes = [&whole[..8], changed.as_bytes(), &whole[header..]].concat();
        let error = opened(&bytes).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_writer_wants_all_of_a_decoder_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(DECODER_FILE);
    let mut writer = DecoderWriter::create(&path, &ODD, WeightBits::ThirtyTwo).unwrap();
    assert!(writer.norm("layers.9.feed_norm", &[1.0; 33]).is_err());
    assert!(writer.norm("norm", &[1.0; 32]).is_err());
    writer.norm("norm", &[1.0; 33]).unwrap();
    let error = writer.finish().unwrap_err().to_string();
    assert!(error.contains("was not written"), "{error}");
}
