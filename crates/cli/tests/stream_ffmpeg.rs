//! The command `stream` with a real ffmpeg: videos in and out, pipes of y4m, sizes that change, garbage, and an ffmpeg that is killed.
//! Cameras and screens, which no test machine has, by a program in ffmpeg's place that shows what it was asked for.

mod common;

use common::{Work, rockshard, streaming};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Whether ffmpeg is there. Where it is not, its tests are not run, and say so; in continuous integration it must be.
fn is_here() -> bool {
    let here = Command::new("ffmpeg").arg("-version").output().is_ok_and(|o| o.status.success());
    assert!(here || std::env::var_os("CI").is_none(), "ffmpeg is not installed");
    if !here {
        eprintln!("NOT RUN: ffmpeg is not installed");
    }
    here
}

fn ffmpeg(arguments: &[&str]) {
    let all = [&["-hide_banner", "-loglevel", "error", "-y"][..], arguments].concat();
    assert!(Command::new("ffmpeg").args(all).status().unwrap().success());
}

/// A test picture that moves, so many frames at ten a second.
fn video(path: &Path, size: &str, frames: u32) {
    let source = format!("testsrc=size={size}:rate=10");
    let frames = frames.to_string();
    let to = path.to_str().unwrap();
    ffmpeg(&["-f", "lavfi", "-i", &source, "-frames:v", &frames, "-pix_fmt", "yuv420p", to]);
}

/// Width, height and frames of a video, counted by decoding it.
fn probed(path: &Path) -> String {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-select_streams", "v", "-of", "csv=p=0"])
        .args(["-show_entries", "stream=width,height,nb_read_frames"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn started(rest: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rockshard"));
    command.args(streaming(rest)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The ffmpeg that a program has started.
fn its_ffmpeg(parent: &Child) -> String {
    let start = Instant::now();
    loop {
        let mut pgrep = Command::new("pgrep");
        pgrep.args(["-x", "-P", &parent.id().to_string(), "ffmpeg"]);
        let found = String::from_utf8(pgrep.output().unwrap().stdout).unwrap();
        if !found.trim().is_empty() {
            return found.trim().to_owned();
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no ffmpeg was started");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// A program must end within a minute.
fn ended(child: Child) -> (Option<i32>, String) {
    let (send, receive) = std::sync::mpsc::channel();
    let id = child.id();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    let Ok(output) = receive.recv_timeout(Duration::from_secs(60)) else {
        let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        panic!("it hangs");
    };
    let output = output.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_video_becomes_a_video() {
    if !is_here() {
        return;
    }
    let work = Work::new();
    let (film, drawn) = (work.path("film.mp4"), work.path("drawn.mp4"));
    video(&film, "66x50", 12);
    let rest = ["--from", film.to_str().unwrap(), "--to", drawn.to_str().unwrap(), "--quiet"];
    rockshard(&streaming(&rest)).success();
    assert_eq!(probed(&drawn), "128,128,12");
}

#[test]
fn a_pipe_of_y4m() {
    if !is_here() {
        return;
    }
    let work = Work::new();
    let (film, to) = (work.path("film.y4m"), work.path("to"));
    video(&film, "64x48", 7);
    let mut command = Command::new(env!("CARGO_BIN_EXE_rockshard"));
    command.args(streaming(&["--from", "-", "--to", to.to_str().unwrap()]));
    let output = command.stdin(std::fs::File::open(&film).unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(count(&to), 7);
}

/// A transport stream may change its size on the way.
#[test]
fn a_video_that_changes_its_size() {
    if !is_here() {
        return;
    }
    let work = Work::new();
    let (small, large, both) = (work.path("a.ts"), work.path("b.ts"), work.path("both.ts"));
    video(&small, "64x48", 5);
    video(&large, "160x96", 6);
    let bytes = [std::fs::read(&small).unwrap(), std::fs::read(&large).unwrap()].concat();
    std::fs::write(&both, bytes).unwrap();
    let to = work.path("to");
    let rest = ["--from", both.to_str().unwrap(), "--to", to.to_str().unwrap()];
    rockshard(&streaming(&rest)).success();
    // ffmpeg keeps the frame rate, and may repeat a frame where the two were joined.
    assert!((11..=13).contains(&count(&to)), "{}", count(&to));
}

#[test]
fn garbage_is_refused_with_what_ffmpeg_says() {
    if !is_here() {
        return;
    }
    let work = Work::new();
    let (film, to) = (work.path("film.mp4"), work.path("to"));
    std::fs::write(&film, vec![7u8; 5000]).unwrap();
    let rest = ["--from", film.to_str().unwrap(), "--to", to.to_str().unwrap()];
    let said = rockshard(&streaming(&rest)).exits(1);
    // What ffmpeg takes it for is its own affair: it fails, or finds nothing.
    assert!(said.contains("film.mp4: ffmpeg "), "{said}");
    std::fs::write(&film, b"\0\0\0\x18ftypmp42").unwrap();
    let said = rockshard(&streaming(&rest)).exits(1);
    assert!(
        said.contains("film.mp4: ffmpeg ended with") && said.contains("Invalid data"),
        "{said}"
    );
    let drawn = work.path("nowhere/drawn.mp4");
    let said = rockshard(&streaming(&["--frames", "3", "--to", drawn.to_str().unwrap()])).exits(1);
    assert!(said.contains("drawn.mp4") && said.contains("No such file"), "{said}");
}

#[test]
fn a_source_whose_ffmpeg_is_killed() {
    if !is_here() {
        return;
    }
    let work = Work::new();
    let (film, to) = (work.path("film.mp4"), work.path("to"));
    video(&film, "64x48", 6000);
    let child = started(&["--from", film.to_str().unwrap(), "--to", to.to_str().unwrap()]);
    let id = its_ffmpeg(&child);
    while count(&to) < 3 {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(Command::new("kill").args(["-9", &id]).status().unwrap().success());
    let (code, said) = ended(child);
    assert_eq!(code, Some(1));
    assert!(said.contains("film.mp4: ffmpeg ended with signal: 9"), "{said}");
    assert!(count(&to) >= 3);
}

#[test]
fn a_sink_whose_ffmpeg_is_killed() {
    if !is_here() {
        return;
    }
    let work = Work::new();
    let drawn = work.path("drawn.mp4");
    let child = started(&["--frames", "100000", "--to", drawn.to_str().unwrap()]);
    let id = its_ffmpeg(&child);
    std::thread::sleep(Duration::from_secs(2));
    assert!(Command::new("kill").args(["-9", &id]).status().unwrap().success());
    let (code, said) = ended(child);
    assert_eq!(code, Some(1));
    assert!(said.contains("drawn.mp4: ffmpeg ended with signal: 9"), "{said}");
}

/// Asked to stop, the stream finishes its video.
#[test]
fn an_interrupted_stream_leaves_a_whole_video() {
    if !is_here() {
        return;
    }
    let work = Work::new();
    let drawn = work.path("drawn.mp4");
    let child = started(&["--frames", "100000", "--to", drawn.to_str().unwrap()]);
    its_ffmpeg(&child);
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    let (_, said) = ended(child);
    let frames = probed(&drawn);
    assert!(frames.starts_with("128,128,") && !frames.ends_with(",0"), "{frames} {said}");
}

/// What is asked of ffmpeg for a camera and a part of the screen.
#[test]
#[cfg(unix)]
fn cameras_and_screens() {
    use std::os::unix::fs::PermissionsExt;
    let work = Work::new();
    let (bin, asked) = (work.path("bin"), work.path("asked"));
    std::fs::create_dir(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\" > {}\nexec head -c {} /dev/zero\n",
        asked.display(),
        2 * 128 * 128 * 3
    );
    std::fs::write(bin.join("ffmpeg"), script).unwrap();
    let all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(bin.join("ffmpeg"), all).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for (from, words) in [
        ("camera:/dev/video9", "-f v4l2 -framerate 15 -i /dev/video9 -vf scale=128:128"),
        (
            "screen:64x32+10+20",
            "-f x11grab -video_size 64x32 -framerate 15 -i :7+10,20 -vf scale=128:128",
        ),
    ] {
        let to = work.path(&from.replace(['/', ':', '+'], "-"));
        let output = Command::new(env!("CARGO_BIN_EXE_rockshard"))
            .args(streaming(&["--from", from, "--to", to.to_str().unwrap(), "--fps", "15"]))
            .env("PATH", &path)
            .env("DISPLAY", ":7")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let asked = std::fs::read_to_string(&asked).unwrap();
        assert!(asked.contains(words), "{asked}");
        assert_eq!(count(&to), 2);
    }
}
