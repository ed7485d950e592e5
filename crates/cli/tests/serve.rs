//! `rockshard serve`, over HTTP as bytes: what a client of no library gets.

mod common;

use common::{PACK, Work, rockshard};
use rockshard_diffusion::Picture;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROMPT: &str = "a large green square on a white background";
const GENERATIONS: &str = "/v1/images/generations";

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(pack: &Path, options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rockshard"));
        command.args(["serve", &format!("tiny={}", pack.display()), "--quiet"]).args(options);
        if !options.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).unwrap_or_default().trim().trim_end_matches('/');
        Server { child, address: address.to_owned() }
    }

    fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Send a request that closes its connection; gives status, head and body.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, Vec<u8>) {
        let mut stream = self.open();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, all[end + 4..].to_vec())
    }

    fn get(&self, path: &str) -> Value {
        let (status, _, body) = self.ask("GET", path, "", "");
        assert_eq!(status, 200, "{path}");
        serde_json::from_slice(&body).unwrap()
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, body) = self.ask("POST", path, "", &body.to_string());
        (status, serde_json::from_slice(&body).unwrap())
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Wait for something to become true.
fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_served_picture_is_the_one_that_generate_draws() {
    let (work, server) = (Work::new(), Server::start(&PACK.1, &[]));
    let file = work.path("picture.png");
    let (pack, out) = (PACK.1.to_str().unwrap(), file.to_str().unwrap());
    rockshard(&["generate", pack, "--prompt", PROMPT, "--seed", "3", "--out", out, "--quiet"])
        .success();
    let request = json!({ "prompt": PROMPT, "num_inference_steps": 4, "width": 128, "height": 128, "seed": 3 });
    let (status, head, body) = server.ask("POST", "/generate", "", &request.to_string());
    assert_eq!(status, 200, "{head}");
    assert_eq!(body, std::fs::read(&file).unwrap());
    let drawn = Picture::from_bytes(&body).unwrap();
    assert_eq!(drawn.parameters.unwrap().prompt, PROMPT);
}

#[test]
fn errors_name_what_and_where_before_any_work() {
    let server = Server::start(&PACK.1, &[]);
    let cases = [
        (json!({}), 400, "missing field `prompt`"),
        (json!({ "prompt": PROMPT, "n": 11 }), 400, "n is 11; it must be 1 to 10"),
        (json!({ "prompt": PROMPT, "n": "1" }), 400, "n: not what is taken here"),
        (json!({ "prompt": PROMPT, "size": "512x512" }), 400, "this model draws 128x128"),
        (json!({ "prompt": PROMPT, "model": "dall-e-3" }), 404, "no model called \"dall-e-3\""),
        (json!({ "prompt": "<lora:x:1>" }), 422, "lora"),
        (json!({ "prompt": PROMPT, "negative_prompt": "people" }), 422, "no negative prompt"),
        (json!({ "prompt": PROMPT, "steps": 51 }), 422, "51 steps are too many"),
    ];
    for (request, expected, said) in cases {
        let (status, body) = server.post(GENERATIONS, &request);
        let message = body["error"]["message"].as_str().unwrap();
        assert_eq!(status, expected, "{request}: {message}");
        assert!(message.contains(said), "{request}: {message}");
        assert_eq!(body["detail"], body["error"]["message"]);
    }
    assert!(server.get("/v1/cores")["packs"][0]["loaded"] == false, "nothing was loaded for that");
}

#[test]
fn a_client_that_goes_away_gives_its_job_up() {
    let server = Server::start(&PACK.1, &[]);
    let body = json!({ "prompt": PROMPT, "n": 10, "steps": 50 }).to_string();
    let mut stream = server.open();
    let head = format!(
        "POST {GENERATIONS} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        server.address,
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    soon("the job is not begun", || server.get("/v1/cores")["jobs"]["running"] == 1);
    drop(stream);
    let left = Instant::now();
    soon("the job goes on", || server.get("/v1/cores")["jobs"]["running"] == 0);
    // 500 steps would take many seconds.
    assert!(left.elapsed() < Duration::from_secs(3), "{:?}", left.elapsed());
    let (_, _, metrics) = server.ask("GET", "/metrics", "", "");
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(
        metrics.contains("rockshard_jobs_finished_total{kind=\"draw\",outcome=\"cancelled\"} 1")
    );
}

#[test]
fn what_was_taken_is_done_before_the_server_stops() {
    let mut server = Server::start(&PACK.1, &[]);
    let request = json!({ "kind": "image", "request": { "prompt": PROMPT, "n": 4, "seed": 5 } });
    let ids: Vec<String> = (0..3)
        .map(|_| {
            let (status, job) = server.post("/v1/jobs", &request);
            assert_eq!(status, 202, "{job}");
            job["id"].as_str().unwrap().to_owned()
        })
        .collect();
    server.terminate();
    soon("it is ready still", || server.ask("GET", "/ready", "", "").0 == 503);
    let (status, refused) = server.post(GENERATIONS, &json!({ "prompt": PROMPT }));
    assert_eq!((status, refused["error"]["code"].as_str()), (503, Some("draining")));
    for id in ids {
        let job = || server.get(&format!("/v1/jobs/{id}"));
        soon("a job is not done", || job()["status"] == "completed");
        let result = server.get(&format!("/v1/jobs/{id}/result"));
        assert_eq!(result["data"].as_array().unwrap().len(), 4);
    }
    let mut ended = None;
    soon("the server does not end", || {
        ended = server.child.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[test]
fn only_who_has_a_token_is_served() {
    let work = Work::new();
    let file = work.path("tokens");
    std::fs::write(&file, "# two people\n0123456789abcdef-one\n0123456789abcdef-two\n").unwrap();
    let server = Server::start(&PACK.1, &["--token-file", file.to_str().unwrap()]);
    let models = |headers: &str| server.ask("GET", "/v1/models", headers, "").0;
    assert_eq!(models(""), 401);
    assert_eq!(models("Authorization: Bearer 0123456789abcdef\r\n"), 401);
    assert_eq!(models("Authorization: Bearer 0123456789abcdef-two\r\n"), 200);
    // What a browser asks before it has one.
    assert_eq!(server.ask("GET", "/", "", "").0, 200);
    assert_eq!(server.ask("GET", "/health", "", "").0, 200);
    std::fs::write(&file, "short\n").unwrap();
    let pack = PACK.1.to_str().unwrap();
    let said = rockshard(&["serve", pack, "--token-file", file.to_str().unwrap()]).exits(1);
    assert!(said.contains("a token must have at least 16"), "{said}");
}

#[test]
fn other_pages_and_other_names_are_refused() {
    let server = Server::start(&PACK.1, &["--allow-origin", "https://draw.example.org"]);
    let body = json!({ "prompt": PROMPT }).to_string();
    let post = |headers: &str| server.ask("POST", GENERATIONS, headers, &body).0;
    assert_eq!(post("Origin: https://evil.example\r\n"), 403);
    assert_eq!(post("Origin: null\r\n"), 403);
    assert_eq!(post("Origin: https://draw.example.org\r\n"), 200);
    assert_eq!(post(&format!("Origin: http://{}\r\n", server.address)), 200);
    let mut stream = server.open();
    stream
        .write_all(b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[test]
fn a_second_server_on_the_port_says_so() {
    let server = Server::start(&PACK.1, &[]);
    let pack = PACK.1.to_str().unwrap();
    let said = rockshard(&["serve", pack, "--listen", &server.address]).exits(1);
    assert!(said.contains(&format!("{} is in use", server.address)), "{said}");
    assert!(said.contains("--listen"), "{said}");
}
