//! The same prompt and seed give the same PNG bytes for 1, 2 and 3 cores and for every placement.

mod common;

use common::{Work, rockshard};
use std::path::Path;

fn draw(pack: &Path, out: &Path, cores: &str, count: &str) {
    let args = [
        "generate",
        "--prompt",
        "a large red circle on a blue background",
        "--seed",
        "3",
        "--cores",
        cores,
        "--count",
        count,
    ];
    rockshard(
        &[&args[..], &["--out", out.to_str().unwrap(), "--quiet", pack.to_str().unwrap()]].concat(),
    )
    .success();
}

#[test]
fn cores_placements_and_company_do_not_change_a_picture() {
    let work = Work::new();
    let mut pictures = Vec::new();
    for (placement, shards) in [("round-robin", "block"), ("balanced", "auto"), ("replicate", "5")]
    {
        let pack = work.path(placement);
        work.convert(&pack, &["--placement", placement, "--shards", shards, "--sandwich", "off"]);
        for cores in ["1", "2", "3"] {
            let out = work.path(&format!("{placement}-{cores}.png"));
            draw(&pack, &out, cores, "1");
            pictures.push((format!("{placement} on {cores} cores"), std::fs::read(&out).unwrap()));
        }
    }
    // Drawn together with others, several in flight.
    let out = work.path("many.png");
    draw(&work.path("round-robin"), &out, "3", "4");
    pictures.push(("first of four".to_owned(), std::fs::read(work.path("many-0.png")).unwrap()));
    let other = std::fs::read(work.path("many-1.png")).unwrap();
    for (what, bytes) in &pictures[1..] {
        assert!(*bytes == pictures[0].1, "{what} differs from {}", pictures[0].0);
    }
    assert!(other != pictures[0].1, "another seed gives another picture");
}
