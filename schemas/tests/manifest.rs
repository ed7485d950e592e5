//! `shards/manifest.schema.json` and [`Manifest::parse`] agree: what is written fits both, and what one refuses for its form
//! the other refuses too.

use rockshard_manifest::{
    AttentionTiling, Compiled, CompiledLayer, Conversion, CoreId, Family, FileEntry, FusedLora,
    Generator, Golden, ImportCheck, LanguageConversion, Manifest, Model, ModelledCost, Optimise,
    Placement, Role, SCHEMA, SandwichRegion, Shard, TensorSpec, Verified,
};
use rockshard_tensor::DType;
use serde_json::{Value, json};

fn schema() -> Value {
    serde_json::from_str(include_str!("../../shards/manifest.schema.json")).unwrap()
}

fn fits(manifest: &Value) -> bool {
    jsonschema::draft202012::is_valid(&schema(), manifest)
}

fn parse(manifest: &Value) -> Result<Manifest, String> {
    Manifest::parse(manifest.to_string().as_bytes()).map_err(|e| e.to_string())
}

fn tensor(name: &str, dtype: DType, scale: f32) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, shape: vec![1, 4, 8, 8], scale }
}

fn shard(name: &str, core: CoreId, input: TensorSpec, output: TensorSpec) -> Shard {
    Shard {
        name: name.into(),
        file: format!("shards/{name}.onnx"),
        reference: format!("reference/{name}.onnx"),
        core,
        stage: 0,
        inputs: vec![input],
        outputs: vec![output],
        operators: [("Conv".into(), 3)].into(),
        weight_bytes: 1 << 20,
        modelled: ModelledCost { micros: 12.5, internal_bytes: 4096 },
        sandwich: Vec::new(),
        attention: Vec::new(),
        golden: None,
        compiled: None,
    }
}

/// A manifest with something of everything.
fn sample() -> Manifest {
    let mut second = shard(
        "unet-01",
        CoreId::Npu(2),
        tensor("h", DType::F32, 0.25),
        tensor("out", DType::F32, 1.0),
    );
    second.sandwich.push(SandwichRegion {
        nodes: ["first".into(), "last".into()],
        factor: 0.25,
        worst_value: "v".into(),
        worst_magnitude: 81_234.0,
        lost_before: 0.003,
        lost_after: 0.0,
    });
    second.attention.push(AttentionTiling {
        value: "a".into(),
        shape: [8, 4096, 4096, 40],
        lowering: "rows:256".into(),
        peak_before: 9,
        peak_after: 3,
    });
    second.golden = Some("golden/unet-01.safetensors".into());
    second.compiled = Some(Compiled {
        file: "shards/unet-01.rknn".into(),
        toolkit: "2.5.0".into(),
        internal_bytes: 366_784,
        weight_bytes: 44_096,
        layers: vec![CompiledLayer {
            name: "/attn/to_k/MatMul".into(),
            op: "Conv".into(),
            target: "NPU".into(),
            output: "(1,64,1,77)".into(),
            cycles: [1562, 960, 1562],
            moved_bytes: 26_624,
        }],
        warnings: vec!["a layer was moved".into()],
        verified: Some(Verified { cosine: 0.999_99, relative_l2: 0.001 }),
    });
    let shards = vec![
        shard("unet-00", CoreId::Host, tensor("x", DType::I64, 1.0), tensor("h", DType::F32, 0.25)),
        second,
    ];
    let more =
        ["golden/unet-inputs.safetensors", "golden/unet-01.safetensors", "shards/unet-01.rknn"]
            .map(String::from);
    let files = shards
        .iter()
        .flat_map(|s| [s.file.clone(), s.reference.clone()])
        .chain(more)
        .map(|f| (f, FileEntry::of(b"x")))
        .collect();
    Manifest {
        schema: SCHEMA,
        generator: Generator { name: "rockshard".into(), version: "0.1.0".into() },
        target: "rk3588".into(),
        family: Family::TextToImage,
        conversion: Conversion {
            sandwich: "auto".into(),
            tile: "auto".into(),
            shards: "auto".into(),
            placement: Placement::Balanced,
            optimise: Optimise::Latency,
            loras: vec![FusedLora {
                file: "style.safetensors".into(),
                scale: 0.8,
                fused: 2,
                unmatched: vec!["lora_unet_x".into()],
            }],
            language: Some(LanguageConversion::Decoder { bits: 8, difference: 1e-6 }),
        },
        models: vec![Model {
            name: "unet".into(),
            role: Role::Unet,
            resolution: Some([64, 64]),
            inputs: vec![tensor("x", DType::I64, 1.0)],
            outputs: vec![tensor("out", DType::F32, 1.0)],
            shards,
            notes: vec!["constant: input \"mask\" is 1 throughout".into()],
            passes: vec!["fusion: attention 1".into()],
            declined: vec!["tile: the attention is small".into()],
            golden: Some(Golden {
                inputs: "golden/unet-inputs.safetensors".into(),
                steps: 2,
                dtype: DType::F16,
            }),
            import: Some(ImportCheck::Pass { distance: 2e-7 }),
            unchanged_us: Some(1234.5),
        }],
        companions: Default::default(),
        files,
    }
}

fn sample_json() -> Value {
    serde_json::from_str(&sample().to_json()).unwrap()
}

/// The sample with the value at a JSON pointer replaced, or added to the object there.
fn with(pointer: &str, value: Value) -> Value {
    let mut manifest = sample_json();
    match manifest.pointer_mut(pointer) {
        Some(place) => *place = value,
        None => {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            manifest
                .pointer_mut(parent)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .insert(key.replace("~1", "/"), value);
        }
    }
    manifest
}

fn without(pointer: &str) -> Value {
    let mut manifest = sample_json();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let removed = manifest
        .pointer_mut(parent)
        .unwrap()
        .as_object_mut()
        .unwrap()
        .remove(&key.replace("~1", "/"));
    assert!(removed.is_some(), "{pointer} is not in the sample");
    manifest
}

const SHARD: &str = "/models/0/shards/1";

#[test]
fn the_schema_is_a_schema() {
    jsonschema::draft202012::meta::validate(&schema()).unwrap();
}

#[test]
fn what_is_written_fits_and_reads_back() {
    let manifest = sample();
    let written = manifest.to_json();
    assert!(written.ends_with("}\n"));
    if let Err(error) = jsonschema::draft202012::validate(&schema(), &sample_json()) {
        panic!("{error} at {}", error.instance_path());
    }
    let read = Manifest::parse(written.as_bytes()).unwrap();
    assert_eq!(read, manifest);
    assert_eq!(read.to_json(), written);
}

#[test]
fn optional_fields_may_be_left_out() {
    let shard = ["/sandwich", "/golden", "/compiled", "/compiled/warnings", "/compiled/verified"]
        .map(|f| SHARD.to_owned() + f);
    let others = [
        "/models/0/resolution",
        "/models/0/notes",
        "/models/0/passes",
        "/models/0/declined",
        "/models/0/golden",
        "/models/0/import",
        "/models/0/unchanged_us",
        "/models/0/shards/0/outputs/0/scale",
    ];
    let loras = ["/conversion/loras", "/conversion/loras/0/unmatched", "/conversion/language"];
    for field in shard.iter().map(String::as_str).chain(others).chain(loras) {
        let manifest = without(field);
        assert!(fits(&manifest), "{field}");
        parse(&manifest).unwrap_or_else(|e| panic!("{field}: {e}"));
    }
}

#[test]
fn every_other_field_is_required() {
    fn fields(value: &Value, at: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let at = format!("{at}/{}", key.replace('/', "~1"));
                    fields(value, &at, out);
                    out.push(at);
                }
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(i, v)| fields(v, &format!("{at}/{i}"), out))
            }
            _ => {}
        }
    }
    let mut all = Vec::new();
    fields(&sample_json(), "", &mut all);
    // What may be left out, and files, which are keyed by path: taking one away is not a matter of form.
    let optional = [
        "/resolution",
        "/notes",
        "/passes",
        "/declined",
        "/1/sandwich",
        "/attention",
        "/scale",
        "/Conv",
        ".onnx",
        ".rknn",
        ".safetensors",
    ];
    let added = [
        "/loras",
        "/language",
        "/unmatched",
        "/golden",
        "/import",
        "/unchanged_us",
        "/compiled",
        "/warnings",
        "/verified",
    ];
    let needed = |at: &&String| {
        !optional.iter().chain(&added).any(|o| at.ends_with(o)) || at.ends_with("/loras/0/scale")
    };
    for field in all.iter().filter(needed) {
        let manifest = without(field);
        assert!(!fits(&manifest), "the schema takes a manifest without {field}");
        assert!(parse(&manifest).is_err(), "a manifest without {field} is read");
    }
}

#[test]
fn both_refuse_bad_forms() {
    let at = |field: &str| format!("{SHARD}/{field}");
    let cases: Vec<(Value, &str)> = vec![
        (with("/colour", json!("red")), "unknown field `colour`"),
        (with("/generator/colour", json!("red")), "unknown field `colour`"),
        (with("/conversion/colour", json!("red")), "unknown field `colour`"),
        (with("/models/0/colour", json!("red")), "unknown field `colour`"),
        (with("/conversion/loras/0/scale", json!("much")), "invalid type"),
        (with("/models/0/golden/steps", json!(-1)), "invalid value"),
        (with(&at("compiled/layers/0/cycles"), json!([1, 2])), "invalid length 2"),
        (with(&at("compiled/verified/cosine"), json!("high")), "invalid type"),
        (with(&at("colour"), json!("red")), "unknown field `colour`"),
        (with(&at("modelled/colour"), json!("red")), "unknown field `colour`"),
        (with(&at("inputs/0/colour"), json!("red")), "unknown field `colour`"),
        (with(&at("sandwich/0/colour"), json!("red")), "unknown field `colour`"),
        (with(&at("attention/0/colour"), json!("red")), "unknown field `colour`"),
        (with("/files/shards~1unet-00.onnx/colour", json!("red")), "unknown field `colour`"),
        (with("/target", json!(3588)), "invalid type: integer `3588`, expected a string"),
        (with("/models", json!({})), "expected a sequence"),
        (with("/models/0/resolution", json!([64])), "invalid length 1"),
        (with(&at("stage"), json!(-1)), "invalid value: integer `-1`"),
        (with(&at("stage"), json!(1u64 << 32)), "invalid value: integer `4294967296`"),
        (with(&at("inputs/0/shape"), json!([1, -1])), "invalid value: integer `-1`"),
        (with(&at("inputs/0/dtype"), json!("float64")), "unknown variant `float64`"),
        (with(&at("attention/0/shape"), json!([1, 2, 3])), "invalid length 3"),
        (with(&at("core"), json!(3)), "core 3 does not exist: cores are 0, 1, 2 and \"host\""),
        (with(&at("core"), json!(300)), "core 300 does not exist"),
        (with(&at("core"), json!(-1)), "core -1 does not exist"),
        (with(&at("core"), json!("gpu")), "core \"gpu\" does not exist"),
        (with(&at("core"), json!(null)), "did not match"),
        (
            with("/files/shards~1unet-00.onnx/sha256", json!("abc")),
            "\"abc\" is not a SHA-256 digest of 64 hexadecimal digits",
        ),
        (
            with("/files/shards~1unet-00.onnx/sha256", json!("+f".repeat(32))),
            "is not a SHA-256 digest",
        ),
        (
            with("/files/shards~1unet-00.onnx/sha256", json!("é".repeat(32))),
            "is not a SHA-256 digest",
        ),
        (with("/files/shards~1unet-00.onnx/size", json!(-1)), "invalid value: integer `-1`"),
        (
            with("/schema", json!(SCHEMA + 1)),
            "schema 2 is newer than 1, the newest this rockshard reads; update rockshard",
        ),
        (with("/schema", json!(u64::MAX)), "schema 18446744073709551615 is newer than 1"),
        (with("/schema", json!(0)), "schema 0 does not exist"),
        (with(&at("inputs/0/scale"), json!(0)), "tensor \"h\" has scale 0"),
        (with(&at("inputs/0/scale"), json!(-0.5)), "tensor \"h\" has scale -0.5"),
        (with("/models/0/outputs/0/scale", json!(1e39)), "number out of range"),
        (with(&at("sandwich/0/factor"), json!(0)), "a factor of 0 or below"),
        (with(&at("sandwich/0/worst_magnitude"), json!(1e39)), "number out of range"),
        (with(&at("modelled/micros"), json!(-1)), "is modelled to take -1 microseconds"),
    ];
    for (manifest, message) in cases {
        assert!(!fits(&manifest), "the schema takes what should fail with {message:?}");
        let error = parse(&manifest).expect_err(message);
        assert!(error.contains(message), "{error:?} does not say {message:?}");
        assert!(error.starts_with("manifest.json: "), "{error:?}");
    }
}

#[test]
fn both_refuse_paths_out_of_the_pack() {
    for bad in [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a/..",
        "..",
        ".",
        "./a",
        "a/./b",
        "a/.",
        "a\\b",
        "C:/x",
        "a\u{0}b",
        "a\n/../b",
    ] {
        let escaped = bad.replace('~', "~0").replace('/', "~1");
        let manifest =
            with(&format!("/files/{escaped}"), json!({"size": 1, "sha256": "0".repeat(64)}));
        assert!(!fits(&manifest), "the schema takes path {bad:?}");
        let error = parse(&manifest).expect_err(bad);
        assert!(error.contains("is not made of plain relative components"), "{error}");
    }
    for good in ["a", "tokenizer/vocab.json", "a..b", "..a", ".a", "a.", "a/b.c/..d"] {
        let manifest = with(
            &format!("/files/{}", good.replace('/', "~1")),
            json!({"size": 1, "sha256": "0".repeat(64)}),
        );
        assert!(fits(&manifest), "the schema refuses path {good:?}");
        parse(&manifest).unwrap();
    }
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let at = |field: &str| format!("{SHARD}/{field}");
    let cases: Vec<(Value, &str)> = vec![
        (with(&at("name"), json!("unet-00")), "two shards are named \"unet-00\""),
        (
            with(&at("inputs/0/name"), json!("nowhere")),
            "shard \"unet-01\" reads \"nowhere\", which no earlier shard writes",
        ),
        (
            with("/models/0/inputs", json!([])),
            "shard \"unet-00\" reads \"x\", which no earlier shard writes",
        ),
        (with(&at("outputs/0/name"), json!("h")), "shard \"unet-01\" writes \"h\" a second time"),
        (
            with("/models/0/outputs/0/name", json!("y")),
            "model \"unet\" has output \"y\", which no shard writes",
        ),
        (
            with(&at("file"), json!("shards/gone.onnx")),
            "shard \"unet-01\" names file \"shards/gone.onnx\", which is not listed under files",
        ),
        (
            without("/files/reference~1unet-00.onnx"),
            "shard \"unet-00\" names file \"reference/unet-00.onnx\", which is not listed",
        ),
        (
            with(&at("golden"), json!("golden/gone")),
            "shard \"unet-01\" names file \"golden/gone\", which is not listed under files",
        ),
        (
            with(&at("compiled/file"), json!("shards/gone.rknn")),
            "shard \"unet-01\" names file \"shards/gone.rknn\", which is not listed",
        ),
        (
            with("/models/0/golden/inputs", json!("gone")),
            "model \"unet\" names file \"gone\", which is not listed under files",
        ),
        (
            with(&at("inputs/0/shape"), json!([1u64 << 31, 2])),
            "tensor \"h\" of shape [2147483648, 2] is over 4 GiB",
        ),
        (with(&at("inputs/0/shape"), json!([u64::MAX, u64::MAX])), "is over 4 GiB"),
    ];
    for (manifest, message) in cases {
        assert!(fits(&manifest), "not a matter of form: {message}");
        let error = parse(&manifest).expect_err(message);
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    }
}

#[test]
fn every_prefix_is_refused() {
    let text = sample().to_json();
    let end = text.trim_end().len();
    for n in (0..end).step_by(7) {
        let error = Manifest::parse(&text.as_bytes()[..n]).expect_err("cut short").to_string();
        assert!(error.starts_with("manifest.json: "), "{error}");
    }
}
