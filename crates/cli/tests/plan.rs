//! Planning and running packs whose operators are divided over the cores.

mod common;

use common::{Work, rockshard};
use rockshard_diffusion::Picture;
use serde_json::Value;
use std::path::Path;

const PROMPT: &str = "a large red circle on a blue background";

fn draw(pack: &Path, out: &Path, cores: &str) -> Vec<f32> {
    let args = [
        "generate",
        "--prompt",
        PROMPT,
        "--seed",
        "3",
        "--quiet",
        "--cores",
        cores,
        "--out",
        out.to_str().unwrap(),
    ];
    rockshard(&[&args[..], &[pack.to_str().unwrap()]].concat()).success();
    Picture::from_bytes(&std::fs::read(out).unwrap()).unwrap().planes()
}

#[test]
fn a_divided_pack_draws_the_same_picture_and_is_faster_in_the_model() {
    let work = Work::new();
    let (whole, split) = (work.path("whole"), work.path("split"));
    work.convert(&whole, &["--shards", "1", "--sandwich", "off"]);
    work.convert(&split, &["--placement", "split", "--sandwich", "off"]);
    let expected = draw(&whole, &work.path("whole.png"), "3");
    for cores in ["1", "3"] {
        let found = draw(&split, &work.path("split.png"), cores);
        let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).sum::<f32>()
            / expected.len() as f32;
        assert!(difference < 0.01, "on {cores} cores the picture differs by {difference}");
    }
    rockshard(&["validate", split.to_str().unwrap(), "--quiet"]).success();

    let (svg, trace) = (work.path("plan.svg"), work.path("plan.json"));
    let plan = |pack: &Path, more: &[&str]| -> Value {
        let out =
            rockshard(&[&["plan", pack.to_str().unwrap(), "--json"], more].concat()).success();
        serde_json::from_str(&out).unwrap()
    };
    let divided =
        plan(&split, &["--timeline", svg.to_str().unwrap(), "--trace", trace.to_str().unwrap()]);
    assert_eq!(divided["time"], "modelled");
    let unet = |plan: &Value| {
        plan["models"].as_array().unwrap().iter().find(|m| m["model"] == "unet").unwrap().clone()
    };
    let figures = unet(&divided)["figures"].as_array().unwrap().clone();
    // Speed-ups are against the graph as it came, which is the same for every pack of it, and not against the divided pack.
    let unchanged = |plan: &Value| unet(plan)["unchanged_us"].as_f64().unwrap();
    let as_it_came = plan(&whole, &[]);
    assert_eq!(unchanged(&divided), unchanged(&as_it_came));
    let of_one = unet(&as_it_came)["figures"][0]["latency_us"].as_f64().unwrap();
    assert!((unchanged(&divided) / of_one - 1.0).abs() < 0.05, "{of_one}");
    let table = rockshard(&["plan", split.to_str().unwrap()]).success();
    assert!(table.contains("unchanged     1"), "{table}");
    // One core, then four modes on two and on three.
    assert_eq!(figures.len(), 9);
    let latency = |mode: &str, cores: u64| {
        let found = figures.iter().find(|f| f["mode"] == mode && f["cores"] == cores).unwrap();
        found["latency_us"].as_f64().unwrap()
    };
    assert!(latency("split", 3) < latency("replicate", 1));
    assert_eq!(unet(&plan(&split, &["--cores", "1"]))["figures"].as_array().unwrap().len(), 1);
    let pictures = divided["pictures_us"].as_object().unwrap();
    assert_eq!(pictures.len(), 1);
    let steps = plan(&split, &["--steps", "8"]);
    let longer =
        steps["pictures_us"].as_object().unwrap().values().next().unwrap().as_f64().unwrap();
    assert!(longer > pictures.values().next().unwrap().as_f64().unwrap());

    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("modelled") && svg.contains("core 2"));
    let trace: Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let last = events
        .iter()
        .filter_map(|e| Some(e["ts"].as_f64()? + e["dur"].as_f64()?))
        .fold(0.0, f64::max);
    let total = pictures.values().next().unwrap().as_f64().unwrap();
    assert!((last - total).abs() < 1e-6 * total, "the trace ends at {last}, the plan says {total}");
}

#[test]
fn plan_manifest_and_simulator_state_the_same_time() {
    let work = Work::new();
    let (pack, picture) = (work.path("pack"), work.path("picture.png"));
    work.convert(&pack, &["--placement", "split", "--sandwich", "off"]);
    let json =
        |args: &[&str]| -> Value { serde_json::from_str(&rockshard(args).success()).unwrap() };
    let (pack, picture) = (pack.to_str().unwrap(), picture.to_str().unwrap());
    let plan = json(&["plan", pack, "--cores", "1", "--json"]);
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(Path::new(pack).join("manifest.json")).unwrap())
            .unwrap();
    let near = |a: f64, b: f64| (a - b).abs() < 1e-6 * a;
    for (planned, model) in
        plan["models"].as_array().unwrap().iter().zip(manifest["models"].as_array().unwrap())
    {
        let shards = model["shards"].as_array().unwrap().iter().filter(|s| s["core"] != "host");
        let stated: f64 = shards.map(|s| s["modelled"]["micros"].as_f64().unwrap()).sum();
        assert!(
            near(planned["figures"][0]["latency_us"].as_f64().unwrap(), stated),
            "{}: {stated}",
            model["name"]
        );
    }
    let drawn = json(&[
        "generate", pack, "--prompt", PROMPT, "--cores", "1", "--out", picture, "--quiet", "--json",
    ]);
    let planned =
        plan["pictures_us"].as_object().unwrap().values().next().unwrap().as_f64().unwrap();
    assert!(
        near(planned, drawn["modelled_device_us"].as_f64().unwrap()),
        "{planned} and {}",
        drawn["modelled_device_us"]
    );
}

#[test]
fn replicas_are_picked_for_a_stream_and_one_core_is_never_slower_than_it_says() {
    let work = Work::new();
    let pack = work.path("pack");
    work.convert(&pack, &["--placement", "replicate", "--shards", "1", "--sandwich", "off"]);
    let out = rockshard(&["plan", pack.to_str().unwrap(), "--optimise", "throughput"]).success();
    assert!(out.starts_with("All times are modelled."), "{out}");
    let picked: Vec<&str> = out.lines().filter(|l| l.starts_with("* ")).collect();
    assert_eq!(picked.len(), 6, "a pick a model: {out}");
    assert!(picked.iter().all(|l| l.starts_with("* replicate")), "{out}");
}

#[test]
fn split_leaves_nothing_to_other_cuts() {
    let work = Work::new();
    for (options, named) in
        [(["--shards", "block"], "--shards block"), (["--tile", "heads"], "--tile heads")]
    {
        let (model, out) = (common::model(), work.path("pack"));
        let args = [
            "convert",
            model.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--placement",
            "split",
        ];
        let error = rockshard(&[&args[..], &options].concat()).exits(1);
        assert!(
            error.contains("placement split decides where a model is cut")
                && error.contains(&format!("leave {named} out, or choose another --placement")),
            "{error}"
        );
        assert!(!out.exists());
    }
}
