//! The pictures that the server's clients got are of what they asked for. `tools/check_server.py` saves them, each beside its scene.

mod checker;

use checker::{Scene, is_right};
use rockshard_diffusion::Picture;
use std::path::PathBuf;

/// The folder of pictures.
const FOLDER: &str = "ROCKSHARD_SERVED";

#[test]
#[ignore = "judges what tools/check_server.py saves: .ci/run asks for it after that"]
fn served_pictures_show_what_was_asked_for() {
    let folder = PathBuf::from(std::env::var(FOLDER).expect("ROCKSHARD_SERVED names a folder"));
    let (mut judged, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            continue;
        }
        let scene = std::fs::read(path.with_extension("json")).unwrap();
        let scene: Scene = serde_json::from_slice(&scene).unwrap();
        let picture = Picture::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        judged += 1;
        if !is_right(&picture, &scene, &name) {
            wrong.push(name);
        }
    }
    assert!(judged >= 40, "only {judged} pictures were saved");
    assert!(wrong.is_empty(), "of {judged} pictures: {wrong:?}");
}
