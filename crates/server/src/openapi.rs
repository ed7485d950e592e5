//! `/openapi.json`: what is taken and given, with the models that are served.

mod answers;
mod bodies;

use crate::options::Limits;
use crate::packs::{Kind, ServedPack};
use crate::routes::asked::MOST_STEPS;
use crate::routes::pictures::size_text;
use rockshard::{Drawable, Request};
use serde_json::{Map, Value, json};

/// What the document depends on.
struct Served {
    /// Models that draw, and that describe.
    draw: Vec<String>,
    describe: Vec<String>,
    sizes: Vec<[u32; 2]>,
    /// Most steps of every model by its own sampler.
    steps: usize,
    /// Whether every model has a use for a negative prompt.
    negative: bool,
    pictures: u32,
    prompt: usize,
}

/// The document.
pub fn document(packs: &[ServedPack], limits: &Limits, token: bool) -> Vec<u8> {
    let served = Served::new(packs, limits);
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "rockshard",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Pictures, streams and captions from the NPU of an RK3588. Routes under /v1 are OpenAI's where it has them, routes under /sdapi are A1111's. The WebSocket v1/live is described in docs/server.md.",
        },
        "servers": [{ "url": "./" }],
        "security": if token { json!([{ "token": [] }]) } else { json!([]) },
        "paths": paths(&served),
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(&served),
        },
    });
    serde_json::to_vec_pretty(&document).unwrap_or_default()
}

impl Served {
    fn new(packs: &[ServedPack], limits: &Limits) -> Self {
        let names = |draws: bool| {
            let fits = packs.iter().filter(|p| matches!(p.kind, Kind::Draws(_)) == draws);
            fits.map(|pack| pack.name.clone()).collect()
        };
        let drawables = || {
            packs.iter().flat_map(|pack| match &pack.kind {
                Kind::Draws(sizes) => sizes.as_slice(),
                Kind::Describes => &[],
            })
        };
        let mut sizes: Vec<[u32; 2]> = drawables().map(Drawable::size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        Served {
            draw: names(true),
            describe: names(false),
            sizes,
            steps: drawables().map(most_steps).min().unwrap_or(MOST_STEPS),
            negative: drawables().all(Drawable::takes_negative_prompt),
            pictures: limits.pictures,
            prompt: limits.prompt,
        }
    }

    fn size_names(&self) -> Vec<String> {
        let auto = std::iter::once("auto".to_owned());
        auto.chain(self.sizes.iter().copied().map(size_text)).collect()
    }

    /// A side of pictures, for requests that name both.
    fn sides(&self, side: usize) -> Vec<u32> {
        self.sizes.iter().map(|size| size[side]).collect()
    }
}

/// Most steps that a model takes by its own sampler.
fn most_steps(drawable: &Drawable) -> usize {
    let takes = |steps: usize| {
        let request = drawable.request("", None);
        request.is_ok_and(|r| drawable.check(&Request { steps, ..r }).is_ok())
    };
    (1..=MOST_STEPS).rev().find(|&steps| takes(steps)).unwrap_or(1)
}

fn paths(served: &Served) -> Value {
    let json_body = |name: &str| json!({ "required": true, "content": { "application/json": { "schema": refer(name) } } });
    let form_body = |name: &str| json!({ "required": true, "content": { "multipart/form-data": { "schema": refer(name) } } });
    let mut paths = Map::new();
    let mut add = |path: &str, method: &str, operation: Value| {
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[method] = operation;
    };
    let stream = |name: &str| {
        json!({
            "200": { "description": "As JSON, or with `stream` as server-sent events.", "content": {
                "application/json": { "schema": refer(name) },
                "text/event-stream": { "schema": {} },
            } },
            "default": error(),
        })
    };
    let get = |id: &str, summary: &str, name: &str| json!({ "operationId": id, "summary": summary, "responses": given(200, name) });
    if !served.draw.is_empty() {
        add(
            "/v1/images/generations",
            "post",
            json!({
                "operationId": "createImage", "summary": "Draw pictures of a prompt.",
                "requestBody": json_body("Generations"), "responses": stream("Images"),
            }),
        );
        add(
            "/v1/images/edits",
            "post",
            json!({
                "operationId": "createImageEdit", "summary": "Change a picture, or the part of it that a mask shows.",
                "requestBody": form_body("Edits"), "responses": stream("Images"),
            }),
        );
        add(
            "/v1/images/variations",
            "post",
            json!({
                "operationId": "createImageVariation", "summary": "Draw a picture again, a little different.",
                "requestBody": form_body("Variations"), "responses": stream("Images"),
            }),
        );
        add(
            "/generate",
            "post",
            json!({
                "operationId": "generate", "summary": "Draw one picture (the minimal Stable Diffusion API).",
                "requestBody": json_body("Generate"), "responses": {
                    "200": { "description": "A PNG.", "content": { "image/png": { "schema": { "type": "string", "format": "binary" } } } },
                    "default": error(),
                },
            }),
        );
        add(
            "/sdapi/v1/txt2img",
            "post",
            json!({
                "operationId": "txt2img", "summary": "Draw pictures of a prompt (A1111).",
                "requestBody": json_body("Txt2Img"), "responses": given(200, "SdImages"),
            }),
        );
        add(
            "/sdapi/v1/img2img",
            "post",
            json!({
                "operationId": "img2img", "summary": "Change a picture (A1111).",
                "requestBody": json_body("Img2Img"), "responses": given(200, "SdImages"),
            }),
        );
        add(
            "/sdapi/v1/options",
            "post",
            json!({
                "operationId": "setOptions", "summary": "Choose the model that draws where a request of this API names none (A1111).",
                "requestBody": json_body("SdOptions"), "responses": given(200, "Nothing"),
            }),
        );
    }
    if !served.describe.is_empty() {
        add(
            "/v1/chat/completions",
            "post",
            json!({
                "operationId": "createChatCompletion", "summary": "Answer a question about images.",
                "requestBody": json_body("Chat"), "responses": stream("ChatCompletion"),
            }),
        );
    }
    add("/v1/models", "get", get("listModels", "The models.", "Models"));
    let mut model = get("retrieveModel", "One model.", "Model");
    let mut known = served.draw.clone();
    known.extend(served.describe.clone());
    model["parameters"] = json!([{ "name": "id", "in": "path", "required": true, "schema": { "type": "string", "minLength": 1, "examples": known } }]);
    add("/v1/models/{id}", "get", model);
    add(
        "/v1/jobs",
        "post",
        json!({
            "operationId": "createJob", "summary": "Ask for work now and fetch it later.",
            "requestBody": json_body("Submission"), "responses": given(202, "Job"),
        }),
    );
    add("/v1/jobs", "get", get("listJobs", "Your jobs that are not over.", "Jobs"));
    let job = json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string", "pattern": "^[0-9a-f]{32}$" } });
    let number = json!({ "name": "number", "in": "path", "required": true, "schema": { "type": "integer", "minimum": 0, "maximum": 1000 } });
    let of_job = |id: &str, summary: &str, responses: Value| json!({ "operationId": id, "summary": summary, "parameters": [job], "responses": responses });
    add("/v1/jobs/{id}", "get", of_job("retrieveJob", "How far a job is.", given(200, "Job")));
    add(
        "/v1/jobs/{id}",
        "delete",
        of_job("deleteJob", "Give a job up, and forget what came of it.", given(200, "Job")),
    );
    add("/v1/jobs/{id}/cancel", "post", of_job("cancelJob", "Give a job up.", given(200, "Job")));
    add(
        "/v1/jobs/{id}/result",
        "get",
        of_job(
            "retrieveJobResult",
            "What came of a job: what the route that it is for gives.",
            json!({
                "200": { "description": "Pictures, or words.", "content": { "application/json": { "schema": { "anyOf": [refer("Images"), refer("ChatCompletion")] } } } },
                "default": error(),
            }),
        ),
    );
    let mut picture = of_job(
        "retrieveJobPicture",
        "A picture of a job, as a file.",
        json!({
            "200": { "description": "The file.", "content": {
                "image/png": { "schema": { "type": "string", "format": "binary" } },
                "image/jpeg": { "schema": { "type": "string", "format": "binary" } },
                "image/webp": { "schema": { "type": "string", "format": "binary" } },
            } },
            "default": error(),
        }),
    );
    picture["parameters"] = json!([job, number]);
    add("/v1/jobs/{id}/pictures/{number}", "get", picture);
    add("/v1/cores", "get", get("cores", "What the cores do now.", "Cores"));
    add(
        "/limits",
        "get",
        get("limits", "What can be drawn here (the minimal Stable Diffusion API).", "LimitsAnswer"),
    );
    add("/health", "get", get("health", "Whether the server answers.", "Health"));
    add("/ready", "get", get("ready", "Whether work is taken.", "Ready"));
    add("/sdapi/v1/options", "get", get("options", "Settings (A1111).", "SdOptionsAnswer"));
    add("/sdapi/v1/sd-models", "get", get("sdModels", "The models that draw (A1111).", "SdModels"));
    add("/sdapi/v1/samplers", "get", get("samplers", "The samplers (A1111).", "SdSamplers"));
    add(
        "/sdapi/v1/progress",
        "get",
        get("progress", "How far your drawings are (A1111).", "SdProgress"),
    );
    add(
        "/sdapi/v1/interrupt",
        "post",
        get("interrupt", "Give up your drawings that are under way (A1111).", "Nothing"),
    );
    add(
        "/metrics",
        "get",
        json!({
            "operationId": "metrics", "summary": "Metrics for Prometheus.", "responses": {
                "200": { "description": "Prometheus' text format.", "content": { "text/plain": { "schema": { "type": "string" } } } },
                "default": error(),
            },
        }),
    );
    Value::Object(paths)
}

fn schemas(served: &Served) -> Value {
    let mut all = Map::new();
    all.extend(bodies::schemas(served));
    all.extend(answers::schemas());
    Value::Object(all)
}

fn refer(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn given(status: u16, name: &str) -> Value {
    json!({
        status.to_string(): { "description": "Done.", "content": { "application/json": { "schema": refer(name) } } },
        "default": error(),
    })
}

fn error() -> Value {
    json!({ "description": "Not done; `error` says why.", "content": { "application/json": { "schema": refer("Error") } } })
}
