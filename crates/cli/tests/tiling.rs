//! `--tile grid:32x32` lowers the modelled peak attention memory and changes nothing above float16 rounding.

mod common;

use common::{Work, rockshard};
use rockshard_manifest::Manifest;

#[test]
fn a_grid_of_tiles_needs_less_memory_and_still_passes() {
    let work = Work::new();
    let pack = work.path("grid");
    work.convert(&pack, &["--tile", "grid:32x32", "--shards", "block", "--sandwich", "off"]);
    let json = std::fs::read(pack.join("manifest.json")).unwrap();
    let manifest = Manifest::parse(&json).unwrap();
    let tiled: Vec<_> = manifest
        .models
        .iter()
        .flat_map(|m| &m.shards)
        .flat_map(|s| &s.attention)
        .filter(|a| a.lowering == "grid:32x32")
        .collect();
    assert!(tiled.len() >= 10, "{} attentions tiled", tiled.len());
    for attention in &tiled {
        assert!(attention.peak_after < attention.peak_before, "{attention:?}");
    }
    let (before, after) = (
        tiled.iter().map(|a| a.peak_before).max().unwrap(),
        tiled.iter().map(|a| a.peak_after).max().unwrap(),
    );
    assert!(after * 10 < before, "modelled peak of scores {before} bytes whole, {after} tiled");
    let report = rockshard(&[
        "validate",
        pack.to_str().unwrap(),
        "--threshold",
        "0.9999",
        "--json",
        "--quiet",
    ])
    .success();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["models"].as_array().unwrap().len(), 6);
}

#[test]
fn every_tiling_passes_validation() {
    let work = Work::new();
    for tile in ["off", "rows:48", "heads"] {
        let pack = work.path(&tile.replace(':', "-"));
        work.convert(&pack, &["--tile", tile, "--shards", "layer", "--sandwich", "off"]);
        rockshard(&["validate", pack.to_str().unwrap(), "--quiet"]).success();
    }
}
