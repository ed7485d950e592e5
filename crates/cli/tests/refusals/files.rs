//! Files and processes: two conversions into one directory, links, devices and pipes, paths that are no text, models of other kinds, errors as JSON.

use crate::models::{Extent, encode, good, node, value};
use crate::scratch::Scratch;
use prost::Message;
use rockshard_onnx::schema::ModelProto;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn one_process_converts_into_a_directory() {
    let scratch = Scratch::with_model();
    let mut first = scratch
        .command("convert tiny-lcm --out pack --sandwich auto --check")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !scratch.path(".pack.partial").exists() {
        assert!(started.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(2));
    }
    let second = scratch.run("convert tiny-lcm --out pack --sandwich off");
    let holder = format!("pack: another conversion into it is under way (process {})", first.id());
    assert!(second.code == Some(1) && second.stderr.contains(&holder), "{}", second.stderr);
    assert!(first.wait().unwrap().success());
    assert!(scratch.path("pack/manifest.json").is_file());
    assert!(!scratch.path(".pack.lock").exists());
    scratch.refuses("convert tiny-lcm --out pack", &["pack exists already"]);
}

/// A process that was killed leaves its lock's file, which locks nothing.
#[test]
fn a_lock_that_nobody_holds_is_taken() {
    let scratch = Scratch::new();
    scratch.write("small.onnx", encode(&good()));
    scratch.write(".pack.lock", "1");
    scratch.succeeds("convert small.onnx --out pack");
    assert!(!scratch.path(".pack.lock").exists());
}

const GENERATE: &str = "generate pack --prompt red --steps 1 --quiet --out";

#[test]
fn pictures_go_through_links_and_to_devices_and_pipes() {
    let scratch = Scratch::with_pack();
    fs::create_dir(scratch.path("there")).unwrap();
    symlink("there/real.png", scratch.path("link.png")).unwrap();
    symlink("link.png", scratch.path("two.png")).unwrap();
    for _ in 0..2 {
        scratch.succeeds(&format!("{GENERATE} two.png"));
        assert!(scratch.path("there/real.png").is_file());
        let kept = |name| fs::symlink_metadata(scratch.path(name)).unwrap().is_symlink();
        assert!(kept("link.png") && kept("two.png"));
    }
    symlink("/dev/null", scratch.path("null")).unwrap();
    for device in ["/dev/null", "null"] {
        scratch.succeeds(&format!("{GENERATE} {device}"));
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
    assert!(Command::new("mkfifo").arg(scratch.path("pipe")).status().unwrap().success());
    let reader = Command::new("cat").arg(scratch.path("pipe")).stdout(Stdio::piped()).spawn();
    scratch.succeeds(&format!("{GENERATE} pipe"));
    let read = reader.unwrap().wait_with_output().unwrap().stdout;
    assert_eq!(read, fs::read(scratch.path("there/real.png")).unwrap());
    assert!(fs::metadata(scratch.path("pipe")).unwrap().file_type().is_fifo());
    symlink("round.png", scratch.path("round.png")).unwrap();
    scratch.refuses(&format!("{GENERATE} round.png"), &["round.png", "too many links"]);
}

#[test]
fn a_prompt_may_begin_with_a_dash() {
    let scratch = Scratch::with_pack();
    let ran = scratch.run("generate pack --prompt -red --steps 1 --quiet --out picture.png");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn paths_need_not_be_text() {
    let scratch = Scratch::new();
    let odd = |name: &[u8]| scratch.path("").join(OsStr::from_bytes(name));
    let (model, pack) = (odd(b"mod\xffel.onnx"), odd(b"pa\xfeck"));
    fs::write(&model, encode(&good())).unwrap();
    let run = |arguments: &[&OsStr]| {
        let output = scratch.command("").args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!error.contains("panicked"), "{error}");
        (output.status.success(), error)
    };
    let [convert, out] = ["convert", "--out"].map(OsStr::new);
    let done = run(&[convert, model.as_os_str(), out, pack.as_os_str()]);
    assert!(done.0, "{}", done.1);
    for command in ["inspect", "plan", "validate", "run", "generate"] {
        run(&[OsStr::new(command), pack.as_os_str()]);
    }
    assert!(run(&[OsStr::new("validate"), pack.as_os_str()]).0);
    let report = odd(b"re\xffport.html");
    let arguments = ["validate", "--report"].map(OsStr::new);
    assert!(run(&[arguments[0], pack.as_os_str(), arguments[1], report.as_os_str()]).0);
    assert!(report.is_file());
    // The pack's name is that of its directory, whatever bytes that has.
    assert!(!scratch.path(".pack.partial").exists() && !scratch.path(".pack.lock").exists());
}

#[test]
fn models_of_other_kinds_are_named() {
    let scratch = Scratch::new();
    let tensors = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut checkpoint = (tensors.len() as u64).to_le_bytes().to_vec();
    checkpoint.extend(tensors);
    checkpoint.extend([0; 4]);
    scratch.write("model.safetensors", &checkpoint);
    scratch.write("renamed.onnx", &checkpoint);
    scratch.write("model.ckpt", b"PK\x03\x04 and so on");
    scratch.write("model.pth", b"whatever");
    scratch.write("model.rknn", b"RKNN\0\0\0\0");
    scratch.write(
        "pointer.onnx",
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
    );
    fs::create_dir_all(scratch.path("pytorch/unet")).unwrap();
    scratch.write("pytorch/unet/diffusion_pytorch_model.safetensors", &checkpoint);
    for (model, parts) in [
        ("model.safetensors", ["safetensors checkpoint", "tools/export_models.py"]),
        ("renamed.onnx", ["safetensors checkpoint", "export it to ONNX"]),
        ("model.ckpt", ["PyTorch checkpoint", "export it to ONNX"]),
        ("model.pth", ["PyTorch checkpoint", "export it to ONNX"]),
        ("model.rknn", ["compiled model of rknn-toolkit2", "convert the ONNX file"]),
        ("pointer.onnx", ["git-lfs pointer", "`git lfs pull`"]),
        ("pytorch", ["PyTorch model (unet/diffusion_pytorch_model.safetensors)", "export it"]),
    ] {
        scratch.refuses(&format!("convert {model} --out pack"), &[&[model], &parts[..]].concat());
    }
}

#[test]
fn errors_are_json_where_results_are() {
    let scratch = Scratch::new();
    for (line, code, part) in [
        ("inspect gone --json", 1, "gone"),
        ("convert gone.onnx --out pack --json", 1, "no such file"),
        ("generate pack --steps many --json", 2, "many"),
    ] {
        let ran = scratch.run(line);
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert!(value["error"].as_str().unwrap().contains(part), "{value}");
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
}

#[test]
fn inputs_that_no_model_has_are_refused() {
    let scratch = Scratch::new();
    scratch.write("small.onnx", encode(&good()));
    scratch.succeeds("convert small.onnx --out pack");
    let mut file = Vec::new();
    let tensor = rockshard_tensor::Tensor::from_f32([1, 4], vec![1.0; 4]);
    rockshard_tensor::write_npy(&tensor, &mut file).unwrap();
    scratch.write("x.npy", file);
    scratch.refuses("validate pack --input z=x.npy", &["small has no input \"z\", only x"]);
    scratch.succeeds("validate pack --input x=x.npy");
    scratch.succeeds("validate pack --input small.x=x.npy");
}

#[test]
fn a_scheduler_that_is_not_there_is_named_before_drawing() {
    let scratch = Scratch::with_model();
    let file = "tiny-lcm/scheduler/scheduler_config.json";
    scratch.alter(file, |bytes| {
        let text = String::from_utf8(std::mem::take(bytes)).unwrap();
        *bytes = text.replace("LCMScheduler", "UniPCMultistepScheduler").into_bytes();
    });
    let converted = scratch.succeeds("convert tiny-lcm --out pack --sandwich off");
    assert!(converted.stderr.contains("UniPCMultistepScheduler"), "{}", converted.stderr);
    let parts = ["UniPCMultistepScheduler", "dpm++2m", "--sampler"];
    scratch.refuses("generate pack --prompt red --steps 1 --out picture.png", &parts);
    scratch.succeeds("generate pack --prompt red --steps 1 --out picture.png --sampler euler");
}

#[test]
fn a_model_that_pictures_cannot_be_drawn_with_is_told_when_it_is_converted() {
    for (missing, problem) in
        [("tokenizer", "it has no tokenizer"), ("unet", "its family is network")]
    {
        let scratch = Scratch::with_model();
        fs::remove_dir_all(scratch.path("tiny-lcm").join(missing)).unwrap();
        let converted = scratch.succeeds("convert tiny-lcm --out pack --sandwich off");
        let told =
            format!("`generate` will refuse this pack: pack: not a pack to draw with: {problem}");
        assert!(converted.stderr.contains(&told), "{missing}: {}", converted.stderr);
        scratch.refuses("generate pack --prompt red --out picture.png", &[problem]);
    }
    let scratch = Scratch::with_model();
    let converted = scratch.succeeds("convert tiny-lcm --out pack --sandwich off");
    assert!(!converted.stderr.contains("will refuse"), "{}", converted.stderr);

    // A U-Net with one of SDXL's inputs.
    scratch.alter("tiny-lcm/unet/model.onnx", |bytes| {
        let mut unet = ModelProto::decode(&**bytes).unwrap();
        let graph = unet.graph.as_mut().unwrap();
        graph.input.push(value("text_embeds", &[Extent::Fixed(1), Extent::Fixed(8)]));
        graph.node.push(node("pooled", "Relu", "text_embeds", "pooled"));
        graph.output.push(value("pooled", &[Extent::Fixed(1), Extent::Fixed(8)]));
        *bytes = unet.encode_to_vec();
    });
    let problem = "input text_embeds is not one of Stable Diffusion 1.x or 2.x";
    let converted = scratch.succeeds("convert tiny-lcm --out xl --sandwich off");
    assert!(converted.stderr.contains("`generate` will refuse this pack"), "{}", converted.stderr);
    assert!(converted.stderr.contains(problem), "{}", converted.stderr);
    scratch.refuses("generate xl --prompt red --out picture.png", &[problem]);
}

#[test]
fn a_reader_that_has_enough_ends_nothing() {
    let scratch = Scratch::with_pack();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shards/tiny-lcm");
    for line in [
        "inspect pack --why",
        "plan pack",
        "inspect pack --json",
        "generate pack --steps 1 --prompt red --out picture.png",
        &format!("convert {} --sandwich off --out other", model.display()),
    ] {
        // Both pipes are closed before anything is written.
        let (out, err) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let mut command = scratch.command(line);
        let mut child = command.stdout(out.1).stderr(err.1).spawn().unwrap();
        drop((command, out.0, err.0));
        assert_eq!(child.wait().unwrap().code(), Some(0), "{line}");
    }
    assert!(scratch.path("picture.png").is_file() && scratch.path("other/manifest.json").is_file());
}
