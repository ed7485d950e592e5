//! The judge is right about every kind of scene, also blurred and noisy, and says so when there is none.

mod checker;

use checker::{Colour, LEAST_OVERLAP, Position, Scene, Shape, Size, Unknown, describe, draw};
use rockshard_diffusion::Picture;
use rockshard_diffusion::noise::standard_normal;
use serde::Deserialize;
use std::{fs, path::Path};

fn blurred(picture: &Picture) -> Picture {
    let (w, h) = (picture.width as usize, picture.height as usize);
    let at = |x: usize, y: usize, c: usize| {
        let near = |n: usize, end: usize| n.saturating_sub(1)..(n + 2).min(end);
        let all = near(y, h).flat_map(|v| near(x, w).map(move |u| (u, v)));
        let (sum, n) = all.fold((0u32, 0u32), |(sum, n), (u, v)| {
            (sum + u32::from(picture.rgb[(v * w + u) * 3 + c]), n + 1)
        });
        (sum / n) as u8
    };
    let rgb = (0..w * h * 3).map(|i| at(i / 3 % w, i / 3 / w, i % 3)).collect();
    Picture { rgb, ..picture.clone() }
}

fn noisy(picture: &Picture, seed: u64, deviation: f32) -> Picture {
    let noise = standard_normal(seed, 0, 0, picture.rgb.len());
    let rgb = picture
        .rgb
        .iter()
        .zip(noise)
        .map(|(&v, n)| (f32::from(v) + deviation * n).round().clamp(0.0, 255.0) as u8)
        .collect();
    Picture { rgb, ..picture.clone() }
}

#[test]
fn every_scene_is_recognised() {
    let mut state = 1u64;
    let mut uniform = |low: f32, high: f32| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        low + (high - low) * ((state >> 40) as f32 / (1u64 << 24) as f32)
    };
    let (mut judged, mut wrong, mut least) = (0, Vec::new(), 1f32);
    for &shape in Shape::ALL {
        for &colour in Colour::ALL {
            for &background in Colour::ALL.iter().filter(|&&b| b != colour) {
                for (i, &size) in Size::ALL.iter().enumerate() {
                    for round in 0..3 {
                        let position = Position::ALL[(judged * 5 + i + round) % 9];
                        let scene = Scene::new(shape, colour, size, position, background);
                        let ideal = draw(
                            &scene,
                            [uniform(-2.0, 2.0), uniform(-2.0, 2.0)],
                            uniform(0.96, 1.04),
                        );
                        let picture = match round {
                            0 => ideal,
                            1 => blurred(&ideal),
                            _ => noisy(&blurred(&ideal), judged as u64, 10.0),
                        };
                        match describe(&picture) {
                            Ok(d) if d.matches(&scene) => least = least.min(d.confidence),
                            other => wrong.push(format!("{}: {other:?}", scene.caption)),
                        }
                        judged += 1;
                    }
                }
            }
        }
    }
    assert_eq!(judged, 6 * 8 * 7 * 2 * 3);
    assert!(wrong.is_empty(), "{} of {judged} wrong: {wrong:#?}", wrong.len());
    assert!(least > 0.85, "least confidence {least}");
}

#[test]
fn every_place_and_picture_size_is_recognised() {
    for &shape in Shape::ALL {
        for &size in Size::ALL {
            for &position in Position::ALL {
                let scene = Scene::new(shape, Colour::Yellow, size, position, Colour::Purple);
                let picture = draw(&scene, [0.0, 0.0], 1.0);
                for (width, height) in [(128, 128), (64, 64), (256, 256)] {
                    let d = describe(&picture.resized(width, height));
                    assert!(
                        d.as_ref().is_ok_and(|d| d.matches(&scene)),
                        "{} {width}x{height}: {d:?}",
                        scene.caption
                    );
                }
            }
        }
    }
}

fn plain(colour: [u8; 3]) -> Picture {
    Picture { width: 128, height: 128, rgb: colour.repeat(128 * 128), parameters: None }
}

fn painted(colour: impl Fn(i32, i32) -> Colour) -> Picture {
    let rgb = (0..128 * 128).flat_map(|i| colour(i % 128, i / 128).rgb()).collect();
    Picture { rgb, ..plain([0; 3]) }
}

#[test]
fn pictures_without_a_scene_are_unknown() {
    for &colour in Colour::ALL {
        assert_eq!(describe(&plain(colour.rgb())), Err(Unknown::NoFigure(colour)));
        assert_eq!(describe(&noisy(&plain(colour.rgb()), 3, 8.0)), Err(Unknown::NoFigure(colour)));
        let scattered = noisy(&plain(colour.rgb()), 4, 90.0);
        assert!(describe(&scattered).is_err(), "{colour}: {:?}", describe(&scattered));
    }
    assert!(matches!(describe(&plain([128; 3])), Err(Unknown::Background(_))));
    let halves = painted(|x, _| if x < 60 { Colour::Red } else { Colour::Blue });
    assert!(matches!(describe(&halves), Err(Unknown::Shape { .. })), "{:?}", describe(&halves));
    let stripes =
        painted(
            |x, y| {
                if x / 8 % 2 == 0 && (8..120).contains(&y) { Colour::Red } else { Colour::White }
            },
        );
    assert!(matches!(describe(&stripes), Err(Unknown::Shape { .. })), "{:?}", describe(&stripes));
    let two = painted(|x, y| {
        if (x - 40).pow(2) + (y - 40).pow(2) < 400 || (x - 90).pow(2) + (y - 90).pow(2) < 400 {
            Colour::Red
        } else {
            Colour::White
        }
    });
    assert!(matches!(describe(&two), Err(Unknown::Shape { .. })), "{:?}", describe(&two));
    let wedge =
        painted(|x, y| if 2 * (x - 64).abs() < 91 - y { Colour::Red } else { Colour::White });
    assert!(describe(&wedge).is_err(), "{:?}", describe(&wedge));
    let corner =
        painted(
            |x, y| {
                if (x - 20).pow(2) + (y - 64).pow(2) < 324 { Colour::Red } else { Colour::White }
            },
        );
    assert!(matches!(describe(&corner), Err(Unknown::Position { .. })), "{:?}", describe(&corner));
    let tiny = Picture { width: 8, height: 8, rgb: vec![0; 192], parameters: None };
    assert_eq!(describe(&tiny), Err(Unknown::NotAPicture));
    assert_eq!(describe(&Picture { width: 128, ..tiny }), Err(Unknown::NotAPicture));
}

#[test]
fn every_difference_is_named() {
    let scene =
        Scene::new(Shape::Circle, Colour::Red, Size::Small, Position::TopLeft, Colour::Blue);
    let d = describe(&draw(&scene, [0.0, 0.0], 1.0)).unwrap();
    assert!(d.matches(&scene) && d.confidence > LEAST_OVERLAP);
    assert_eq!(d.to_string(), scene.caption);
    let other = Scene::new(Shape::Ring, Colour::Green, Size::Large, Position::Right, Colour::White);
    assert_eq!(d.differences(&other), ["shape", "colour", "size", "position", "background"]);
    assert!(!d.matches(&Scene { size: Size::Large, ..scene }));
}

#[derive(Deserialize)]
struct Drawn {
    #[serde(flatten)]
    scene: Scene,
    dx: f32,
    dy: f32,
    factor: f32,
    sums: [i64; 3],
}

/// The drawings are those of the training program (tools/record_vectors.py drawings), and each is recognised.
#[test]
fn drawings_equal_the_training_pictures() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/drawings.json");
    let drawn: Vec<Drawn> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(drawn.len(), 64);
    for Drawn { scene, dx, dy, factor, sums } in drawn {
        let picture = draw(&scene, [dx, dy], factor);
        for (channel, expected) in sums.iter().enumerate() {
            let sum: i64 = picture.rgb.iter().skip(channel).step_by(3).map(|&v| i64::from(v)).sum();
            assert!(
                (sum - expected).abs() <= 8,
                "{}: channel {channel} sums to {sum}, not {expected}",
                scene.caption
            );
        }
        assert_eq!(
            Scene {
                seed: scene.seed,
                ..Scene::new(
                    scene.shape,
                    scene.colour,
                    scene.size,
                    scene.position,
                    scene.background
                )
            },
            scene
        );
        assert!(describe(&picture).is_ok_and(|d| d.matches(&scene)), "{}", scene.caption);
    }
}
