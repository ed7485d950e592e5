//! Whatever fails in a validation has its next step: on the terminal, with `--json` and in the report.

mod common;

use common::{Work, rockshard, unfolded};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Validate a pack, which must fail; what was found, and the page.
fn failing(work: &Work, pack: &Path, more: &[&str]) -> (Value, String) {
    let page = work.path("report.html");
    let args = ["validate", pack.to_str().unwrap(), "--report", page.to_str().unwrap(), "--quiet"];
    let args = [&args[..], more].concat();
    let told = unfolded(&rockshard(&args).stdout());
    let run = rockshard(&[&args[..], &["--json"]].concat());
    assert_eq!(run.output.status.code(), Some(3), "{}", run.stderr());
    let found: Value = serde_json::from_str(&run.stdout()).unwrap();
    for step in found["next_steps"].as_array().unwrap() {
        assert!(told.contains(text(&step["likely"])), "{step} is not in {told}");
        for remedy in step["remedies"].as_array().unwrap() {
            assert!(told.contains(text(&remedy["what"])), "{remedy} is not in {told}");
        }
    }
    (found, std::fs::read_to_string(page).unwrap())
}

/// Names of a model's layers that fail.
fn wrong(model: &Value) -> BTreeSet<&str> {
    let layers = model["layers"].as_array().unwrap().iter();
    layers.filter(|l| l["verdict"]["state"] == "fail").map(|l| text(&l["name"])).collect()
}

/// Each layer that fails is in one step, with something to type.
fn complete(found: &Value, page: &str) {
    let steps = found["next_steps"].as_array().unwrap();
    for (i, model) in found["models"].as_array().unwrap().iter().enumerate() {
        let own = || steps.iter().filter(|step| step["model"] == model["model"]);
        let named: Vec<&str> =
            own().flat_map(|step| step["layers"].as_array().unwrap().iter().map(text)).collect();
        assert_eq!(named.len(), wrong(model).len());
        assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), wrong(model));
        for (at, step) in own().enumerate() {
            let remedies = step["remedies"].as_array().unwrap();
            assert!(
                remedies
                    .iter()
                    .any(|r| r["command"].as_str().is_some_and(|c| c.starts_with("rockshard ")))
            );
            let links = page.matches(&format!("href=\"#model-{i}-step-{}\"", at + 1)).count();
            assert_eq!(links, step["layers"].as_array().unwrap().len(), "{step}");
        }
    }
    let linked = |text: &str| page.matches(text).count();
    assert!(linked("What to do") > 0 && linked("rockshard ") > 0);
}

#[test]
fn values_that_overflow_lead_to_scaling() {
    let work = Work::new();
    let pack = work.path("pack");
    work.convert(&pack, &["--sandwich", "4096", "--shards", "block"]);
    let (found, page) = failing(&work, &pack, &[]);
    complete(&found, &page);
    let steps = found["next_steps"].as_array().unwrap();
    let overflow = steps.iter().find(|s| text(&s["likely"]).contains("float16's range")).unwrap();
    let command = text(&overflow["remedies"][0]["command"]);
    assert!(command.contains("--sandwich auto --calibrate "), "{command}");
    assert!(steps.iter().any(|s| text(&s["likely"]).starts_with("right by itself")));
}

#[test]
fn a_threshold_that_float16_cannot_reach_leads_to_the_usual_one() {
    let work = Work::new();
    let pack = work.path("pack");
    work.convert(&pack, &["--shards", "block"]);
    let (found, page) = failing(&work, &pack, &["--threshold", "0.9999999"]);
    complete(&found, &page);
    assert!(!page.contains("cosine 1.000000 of"), "a cosine that fails is rounded up to 1");
    for step in found["next_steps"].as_array().unwrap() {
        assert!(text(&step["likely"]).starts_with("float16's rounding"), "{step}");
        let command = text(&step["remedies"][0]["command"]);
        let program = command.replace("rockshard", env!("CARGO_BIN_EXE_rockshard"));
        assert!(Command::new("sh").args(["-c", &program]).output().unwrap().status.success());
    }
}
