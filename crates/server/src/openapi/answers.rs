//! Schemas of what is given.

use serde_json::{Map, Value, json};

pub(super) fn schemas() -> Map<String, Value> {
    let text = || json!({ "type": "string" });
    let whole = || json!({ "type": "integer", "minimum": 0 });
    let number = || json!({ "type": "number" });
    let flag = || json!({ "type": "boolean" });
    let or_null = |kind: &str| json!({ "type": [kind, "null"] });
    let list = |items: Value| json!({ "type": "array", "items": items });
    let all = |properties: Value| {
        let names: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
        json!({ "type": "object", "properties": properties, "required": names })
    };
    let some = |properties: Value, required: &[&str]| json!({ "type": "object", "properties": properties, "required": required });
    let times = all(json!({ "measured_ms": number(), "modelled_ms": or_null("number") }));
    let model = some(
        json!({
            "id": text(), "object": { "const": "model" }, "created": whole(), "owned_by": text(),
            "kind": { "enum": ["text-to-image", "vision-language"] }, "device": text(), "modelled": flag(), "loaded": flag(),
            "sizes": list(text()), "steps": or_null("integer"), "guidance_scale": or_null("number"),
            "sampler": or_null("string"), "samplers": list(text()), "negative_prompt": flag(), "edits": flag(),
        }),
        &["id", "object", "created", "owned_by", "kind", "device", "modelled", "loaded"],
    );
    let job = some(
        json!({
            "id": text(), "object": { "const": "job" }, "kind": { "enum": ["image", "chat"] }, "model": text(),
            "status": { "enum": ["queued", "running", "completed", "failed", "cancelled"] }, "created": whole(),
            "progress": all(json!({ "done": whole(), "total": whole() })), "poll_url": text(),
            "position": whole(), "wait_s": number(), "result_url": text(), "picture_urls": list(text()),
            "error": { "type": "object" },
        }),
        &["id", "object", "kind", "model", "status", "created", "progress", "poll_url"],
    );
    let resolution = all(json!({
        "max_width": whole(), "max_height": whole(), "min_dimension": whole(), "divisible_by": whole(),
        "max_tested_stable": or_null("string"), "sizes": list(text()),
    }));
    let schemas = json!({
        "Error": all(json!({
            "error": all(json!({ "message": text(), "type": text(), "param": or_null("string"), "code": or_null("string") })),
            "detail": text(),
        })),
        "Images": some(json!({
            "created": whole(),
            "data": list(some(json!({ "b64_json": text(), "url": text(), "seed": whole() }), &["seed"])),
            "background": text(), "output_format": { "enum": ["png", "jpeg", "webp"] }, "size": text(), "model": text(),
            "timings": times, "warnings": list(text()),
        }), &["created", "data", "output_format", "size", "model", "timings"]),
        "ChatCompletion": all(json!({
            "id": text(), "object": { "const": "chat.completion" }, "created": whole(), "model": text(),
            "choices": list(all(json!({
                "index": whole(), "finish_reason": { "enum": ["stop", "length"] },
                "message": some(json!({ "role": { "const": "assistant" }, "content": text() }), &["role", "content"]),
            }))),
            "usage": all(json!({ "prompt_tokens": whole(), "completion_tokens": whole(), "total_tokens": whole() })),
            "timings": times,
        })),
        "Model": model,
        "Models": all(json!({ "object": { "const": "list" }, "data": list(super::refer("Model")) })),
        "Job": job,
        "Jobs": all(json!({ "object": { "const": "list" }, "data": list(super::refer("Job")) })),
        "Cores": all(json!({
            "device": text(), "modelled": flag(), "now_us": number(),
            "jobs": all(json!({ "waiting": whole(), "running": whole(), "limit": whole(), "wait_s": number() })),
            "live": all(json!({ "active": whole(), "waiting": whole() })),
            "memory": all(json!({ "resident_bytes": whole(), "limit_bytes": or_null("integer") })),
            "packs": list(all(json!({ "id": text(), "kind": text(), "loaded": flag() }))),
            "cores": list(all(json!({ "core": whole(), "busy": { "type": "number", "minimum": 0, "maximum": 1 }, "model": or_null("string"), "shard": or_null("string"), "runs": whole() }))),
            "recent": list(all(json!({ "core": whole(), "model": text(), "shard": text(), "start_us": number(), "end_us": number(), "modelled_us": or_null("number") }))),
        })),
        "LimitsAnswer": all(json!({
            "resolution": resolution,
            "hardware": all(json!({ "gpu": text(), "vram": text(), "rocm_available": flag() })),
        })),
        "Health": all(json!({
            "status": { "enum": ["healthy", "draining"] }, "version": text(), "device": text(), "uptime_s": whole(),
            "resolution_limits": resolution,
        })),
        "Ready": all(json!({ "status": { "enum": ["ready", "busy"] } })),
        "SdImages": all(json!({ "images": list(text()), "parameters": { "type": "object" }, "info": text() })),
        "SdOptionsAnswer": some(json!({ "sd_model_checkpoint": or_null("string") }), &["sd_model_checkpoint"]),
        "SdModels": list(some(json!({ "title": text(), "model_name": text() }), &["title", "model_name"])),
        "SdSamplers": list(all(json!({ "name": text(), "aliases": list(text()), "options": { "type": "object" } }))),
        "SdProgress": all(json!({
            "progress": { "type": "number", "minimum": 0, "maximum": 1 }, "eta_relative": number(), "state": { "type": "object" },
            "current_image": or_null("string"), "textinfo": or_null("string"),
        })),
        "Nothing": { "type": ["object", "null"] },
    });
    match schemas {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}
