//! The command `stream`: sources that end, break off or give garbage, sinks that go away, and the page for a quick look.

mod common;

use common::{PACK, PROMPT, Work, rockshard, streaming};
use rockshard_diffusion::Picture;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SIZE: usize = 128 * 128 * 3;

fn started(rest: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rockshard"));
    command.args(streaming(rest)).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// A program must end within a minute; gives its exit code and what it said on standard error.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said)
}

fn picture(width: u32, height: u32) -> Picture {
    let rgb = (0..width * height * 3).map(|i| (i * 7 % 256) as u8).collect();
    Picture { width, height, rgb, parameters: None }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Pictures of any size are drawn; what is none is named and left out, and the others keep their order.
#[test]
fn a_folder_with_garbage_in_it() {
    let work = Work::new();
    let (from, to) = (work.path("from"), work.path("to"));
    std::fs::create_dir(&from).unwrap();
    picture(128, 128).save(&from.join("a.png")).unwrap();
    picture(33, 257).save(&from.join("b.png")).unwrap();
    std::fs::write(from.join("c.png"), b"no picture").unwrap();
    let whole = picture(64, 64).to_png().unwrap();
    std::fs::write(from.join("d.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(from.join("e.jpg"), picture(50, 40).to_jpeg(90).unwrap()).unwrap();
    std::fs::write(from.join("notes.txt"), b"left alone").unwrap();
    let rest = ["--from", from.to_str().unwrap(), "--to", to.to_str().unwrap(), "--json"];
    let run = rockshard(&streaming(&rest));
    let said = run.stderr();
    assert!(said.contains("c.png") && said.contains("d.png"), "{said}");
    let printed = run.success();
    assert_eq!(names(&to), ["frame-000000.png", "frame-000001.png", "frame-000002.png"]);
    assert!(printed.contains("\"unreadable\": 2"), "{printed}");
    let bytes = std::fs::read(to.join("frame-000001.png")).unwrap();
    let drawn = Picture::from_bytes(&bytes).unwrap();
    assert_eq!((drawn.width, drawn.height), (128, 128));
}

/// A pipe that breaks off within a frame: what was whole is drawn, and the rest is an error.
#[test]
fn a_pipe_that_breaks_off() {
    let work = Work::new();
    let to = work.path("to");
    let mut child = started(&["--from", "-", "--raw", "128x128", "--to", to.to_str().unwrap()]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(&vec![100; 2 * SIZE + 5]).unwrap();
    drop(input);
    let (code, said) = ended(child);
    assert_eq!(code, Some(1));
    assert!(said.contains("the last frame has 5 of the 49152 bytes"), "{said}");
    assert_eq!(names(&to).len(), 2);
}

/// A reader that goes away ends the stream with an error instead of a hang.
#[test]
fn a_sink_that_goes_away() {
    let mut child = started(&["--to", "-", "--frames", "1000000"]);
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut vec![0; SIZE]).unwrap();
    drop(output);
    let (code, said) = ended(child);
    assert_eq!(code, Some(1));
    assert!(said.contains("the pipe that frames go to was closed"), "{said}");
}

/// What a pipe is given comes out, in order, frame by frame.
#[test]
fn from_pipe_to_pipe() {
    let mut child = started(&["--from", "-", "--raw", "128x128", "--to", "-", "--quiet"]);
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        (0..6u8).for_each(|n| input.write_all(&vec![n * 40; SIZE]).unwrap());
    });
    let mut frames = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut frames).unwrap();
    writer.join().unwrap();
    assert_eq!(ended(child).0, Some(0));
    // The summary is text, behind the last frame.
    assert!(frames.len() >= 6 * SIZE && frames.len() < 7 * SIZE, "{}", frames.len());
}

/// Pictures of every kind are drawn: with alpha, of 16 bits, CMYK, turned by EXIF, of odd size.
#[test]
fn a_folder_of_every_kind() {
    let work = Work::new();
    let (from, to) = (
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../diffusion/tests/data/pictures"),
        work.path("to"),
    );
    let rest = ["--from", from.to_str().unwrap(), "--to", to.to_str().unwrap(), "--json"];
    let printed = rockshard(&streaming(&rest)).success();
    let kinds = std::fs::read_dir(&from).unwrap().count();
    assert!(kinds >= 6 && names(&to).len() == kinds, "{:?}", names(&to));
    assert!(printed.contains("\"unreadable\": 0"), "{printed}");
}

/// A sink that takes nothing for a while holds up the stream, and loses nothing.
#[test]
fn a_sink_that_blocks() {
    let mut child = started(&["--to", "-", "--frames", "24", "--quiet"]);
    std::thread::sleep(Duration::from_secs(4));
    assert!(child.try_wait().unwrap().is_none(), "24 frames do not fit in a pipe");
    let mut frames = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut frames).unwrap();
    assert_eq!(ended(child).0, Some(0));
    assert_eq!(frames.len() / SIZE, 24);
}

/// A source that stalls is said to; the stream goes on when it does.
#[test]
fn a_source_that_stalls() {
    let work = Work::new();
    let to = work.path("to");
    let mut child = started(&["--from", "-", "--raw", "128x128", "--to", to.to_str().unwrap()]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(&vec![100; SIZE]).unwrap();
    std::thread::sleep(Duration::from_secs(13));
    input.write_all(&vec![200; SIZE]).unwrap();
    drop(input);
    let (code, said) = ended(child);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("no frame has come for 10 s; still waiting").count(), 1, "{said}");
    assert_eq!(names(&to).len(), 2);
}

#[test]
fn without_ffmpeg_a_video_is_refused_with_advice() {
    let work = Work::new();
    let video = work.path("film.mp4");
    std::fs::write(&video, b"not looked at").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_rockshard"))
        .args(streaming(&["--from", video.to_str().unwrap(), "--to", "-"]))
        .env("PATH", "")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("ffmpeg is not on the PATH: install it"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn what_cannot_be_is_refused_before_the_work() {
    let work = Work::new();
    let to = work.path("to");
    let to = to.to_str().unwrap();
    for (rest, said) in [
        (vec!["--to", to, "--from", "nowhere"], "nowhere: No such file"),
        (vec!["--to", to, "--frames", "1", "--t-index", "40,20"], "must be above the one before"),
        (vec!["--to", to, "--frames", "1", "--frame-buffer", "0"], "a frame buffer of 0"),
        (vec!["--to", to, "--frames", "1", "--size", "64x64"], "64x64"),
    ] {
        let pack = PACK.1.to_str().unwrap();
        let found =
            rockshard(&[&["stream", pack, "--prompt", PROMPT][..], &rest].concat()).exits(1);
        assert!(found.contains(said), "{rest:?}: {found}");
    }
    let pack = PACK.1.to_str().unwrap();
    let missing = ["stream", pack, "--prompt-file", "gone.txt", "--to", to, "--frames", "1"];
    let found = rockshard(&missing).exits(1);
    assert!(found.contains("gone.txt"), "{found}");
}

/// The page on the loopback address shows frames as they come.
#[test]
fn a_page_for_a_quick_look() {
    let mut child = started(&["--to", "http:0", "--frames", "100000"]);
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address =
        line.trim().strip_prefix("stream: look at http://").unwrap_or_else(|| panic!("{line}"));
    let host = address.trim_end_matches('/').to_owned();
    assert!(host.starts_with("127.0.0.1:"), "{host}");
    // So that the program never waits for its messages to be read.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    let get = |path: &str, most: usize| {
        let mut socket = TcpStream::connect(&host).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(50))).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut found = Vec::new();
        let mut buffer = [0; 512];
        while found.len() < most {
            match socket.read(&mut buffer) {
                Ok(n @ 1..) => found.extend_from_slice(&buffer[..n]),
                _ => break,
            }
        }
        String::from_utf8_lossy(&found).into_owned()
    };
    assert!(get("/", 300).contains("<img src=\"/stream\""));
    let frames = get("/stream", 1500);
    assert!(frames.contains("multipart/x-mixed-replace; boundary=frame"), "{frames}");
    assert!(frames.contains("Content-Type: image/jpeg"), "{frames}");
    assert!(get("/other", 100).contains("404"));
    child.kill().unwrap();
    child.wait().unwrap();
}
