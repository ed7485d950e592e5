//! Schemas of what is sent.

use super::Served;
use crate::routes::asked::{LARGEST_SEED, LONGEST_DEADLINE, MOST_GUIDANCE};
use crate::routes::chat::{MOST_MESSAGES, MOST_PARTS, MOST_STOPS, MOST_TOKENS};
use crate::routes::generations::MOST_PREVIEWS;
use rockshard::SamplerName;
use serde_json::{Map, Value, json};

/// A value, or null, which stands for its absence.
fn maybe(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"], "null"]);
    if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        values.push(Value::Null);
    }
    schema
}

/// An object that may have these properties, and others, which change nothing.
fn object(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

fn merged(parts: impl IntoIterator<Item = Value>) -> Value {
    let mut all = Map::new();
    for part in parts {
        if let Value::Object(part) = part {
            all.extend(part);
        }
    }
    Value::Object(all)
}

pub(super) fn schemas(served: &Served) -> Map<String, Value> {
    let mut all = Map::new();
    let mut add = |name: &str, schema: Value| {
        all.insert(name.to_owned(), schema);
    };
    if !served.draw.is_empty() {
        add(
            "Generations",
            object(merged([prompt(served), drawing(served, false), json_only()]), &["prompt"]),
        );
        let image = json!({ "image": picture("The picture: PNG, JPEG or WebP.") });
        let mask = json!({ "mask": picture("A picture of the same size: what is transparent in it may change.") });
        let form = |parts: Vec<Value>, required: &[&str]| {
            let mut schema = object(merged(parts), required);
            schema["additionalProperties"] = false.into();
            schema
        };
        add(
            "Edits",
            form(
                vec![image.clone(), mask, prompt(served), drawing(served, true)],
                &["image", "prompt"],
            ),
        );
        add("Variations", form(vec![image, drawing(served, true)], &["image"]));
        add("Generate", generate(served));
        add("Txt2Img", object(sd(served), &[]));
        let images = json!({ "init_images": { "type": "array", "minItems": 1, "maxItems": 1, "items": { "type": "string", "format": "byte" } } });
        let strength = json!({ "denoising_strength": maybe(strength()) });
        add("Img2Img", object(merged([sd(served), images, strength]), &["init_images"]));
        add("SdOptions", object(json!({ "sd_model_checkpoint": maybe(model(&served.draw)) }), &[]));
    }
    if !served.describe.is_empty() {
        add("Chat", chat(served));
    }
    let kinds = [("image", "Generations", &served.draw), ("chat", "Chat", &served.describe)];
    let kinds = kinds.into_iter().filter(|(.., models)| !models.is_empty());
    let kinds = kinds.map(|(kind, name, _)| {
        object(
            json!({ "kind": { "const": kind, "type": "string" }, "request": super::refer(name) }),
            &["kind", "request"],
        )
    });
    add("Submission", json!({ "oneOf": kinds.collect::<Vec<_>>() }));
    all
}

fn model(names: &[String]) -> Value {
    json!({ "type": "string", "enum": names, "description": "The first of its kind where it is absent." })
}

fn prompt(served: &Served) -> Value {
    json!({ "prompt": { "type": "string", "maxLength": served.prompt, "description": "What to draw; docs/prompts.md has the weights." } })
}

fn seed() -> Value {
    json!({ "type": "integer", "minimum": -1, "maximum": LARGEST_SEED, "description": "Of the first picture; the next ones count up. -1 is a random one." })
}

fn steps(served: &Served) -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": served.steps })
}

fn guidance() -> Value {
    json!({ "type": "number", "minimum": 0, "maximum": MOST_GUIDANCE })
}

fn strength() -> Value {
    json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1, "description": "How much may change." })
}

fn picture(description: &str) -> Value {
    json!({ "type": "string", "format": "binary", "description": description })
}

/// The guidance that negative prompts need.
const GUIDED: f64 = 1.0;

fn negative(served: &Served) -> Value {
    if served.negative {
        json!({ "type": "string", "maxLength": served.prompt, "description": format!("What to keep away from, at a guidance above {GUIDED}.") })
    } else {
        json!({ "type": "string", "maxLength": 0, "description": "These models have no use for it." })
    }
}

/// What every drawing may say. Absent values are null in JSON, and are left out in forms.
fn drawing(served: &Served, form: bool) -> Value {
    let optional = |schema: Value| if form { schema } else { maybe(schema) };
    let mut all = json!({
        "model": optional(model(&served.draw)),
        "n": optional(json!({ "type": "integer", "minimum": 1, "maximum": served.pictures })),
        "size": optional(json!({ "type": "string", "enum": served.size_names() })),
        "output_format": optional(json!({ "type": "string", "enum": ["png", "jpeg", "webp"] })),
        "output_compression": optional(json!({ "type": "integer", "minimum": 0, "maximum": 100, "description": "Quality of JPEG." })),
        "response_format": optional(json!({ "type": "string", "enum": ["b64_json", "url"] })),
        "stream": optional(json!({ "type": "boolean", "description": "Show unfinished pictures; n must be 1." })),
        "partial_images": optional(json!({ "type": "integer", "minimum": 0, "maximum": MOST_PREVIEWS })),
        "background": optional(json!({ "type": "string", "enum": ["opaque", "auto"] })),
        "user": optional(json!({ "type": "string", "description": "Whom you ask for: users get equal shares." })),
        "seed": optional(seed()),
        "steps": optional(steps(served)),
        "guidance_scale": optional(guidance()),
        "negative_prompt": optional(negative(served)),
        "priority": optional(json!({ "type": "string", "enum": ["low", "normal", "high"] })),
        "deadline_s": optional(json!({ "type": "integer", "minimum": 1, "maximum": LONGEST_DEADLINE })),
    });
    if form {
        all["strength"] = strength();
    } else {
        all["sampler"] = maybe(
            json!({ "type": "string", "enum": [served_sampler()], "description": "The model's own where it is absent; GET v1/models has all." }),
        );
    }
    all
}

/// A sampler that all models take with as many steps as the schema allows.
fn served_sampler() -> &'static str {
    SamplerName::Lcm.as_str()
}

fn json_only() -> Value {
    json!({ "safety_identifier": maybe(json!({ "type": "string" })) })
}

fn generate(served: &Served) -> Value {
    object(
        merged([
            prompt(served),
            json!({
                "num_inference_steps": maybe(steps(served)),
                "width": maybe(json!({ "type": "integer", "enum": served.sides(0) })),
                "height": maybe(json!({ "type": "integer", "enum": served.sides(1) })),
                "seed": maybe(seed()),
                "guidance_scale": maybe(guidance()),
                "negative_prompt": maybe(negative(served)),
                "model": maybe(model(&served.draw)),
            }),
        ]),
        &["prompt"],
    )
}

fn sd(served: &Served) -> Value {
    json!({
        "prompt": maybe(json!({ "type": "string", "maxLength": served.prompt })),
        "negative_prompt": maybe(negative(served)),
        "seed": maybe(seed()),
        "steps": maybe(steps(served)),
        "cfg_scale": maybe(guidance()),
        "width": maybe(json!({ "type": "integer", "enum": served.sides(0) })),
        "height": maybe(json!({ "type": "integer", "enum": served.sides(1) })),
        "batch_size": maybe(json!({ "type": "integer", "minimum": 1, "maximum": served.pictures })),
        "n_iter": maybe(json!({ "type": "integer", "minimum": 1, "maximum": served.pictures })),
        "sampler_name": maybe(json!({ "type": "string", "enum": [SamplerName::Lcm.title()] })),
        "override_settings": maybe(object(json!({ "sd_model_checkpoint": maybe(model(&served.draw)) }), &[])),
    })
}

fn chat(served: &Served) -> Value {
    let text = json!({ "type": "string", "minLength": 1, "maxLength": served.prompt });
    let url = json!({ "type": "string", "format": "data-url" });
    let stop = json!({ "type": "string", "minLength": 1 });
    let part = json!({ "oneOf": [
        object(json!({ "type": { "const": "text", "type": "string" }, "text": text }), &["type", "text"]),
        object(json!({ "type": { "const": "image_url", "type": "string" }, "image_url": { "oneOf": [object(json!({ "url": url }), &["url"]), url] } }), &["type", "image_url"]),
    ] });
    let message = |roles: &[&str], content: Value| {
        object(
            json!({ "role": { "type": "string", "enum": roles }, "content": content }),
            &["role", "content"],
        )
    };
    let parts = json!({ "oneOf": [text, { "type": "array", "minItems": 1, "maxItems": MOST_PARTS, "items": part }] });
    object(
        json!({
            "messages": {
                "type": "array", "minItems": 1, "maxItems": MOST_MESSAGES,
                "items": message(&["system", "developer", "user", "assistant"], parts),
                "description": "What was said. The last one is the user's, and is answered; only the user's have images.",
            },
            "model": maybe(model(&served.describe)),
            "max_tokens": maybe(json!({ "type": "integer", "minimum": 1, "maximum": MOST_TOKENS })),
            "max_completion_tokens": maybe(json!({ "type": "integer", "minimum": 1, "maximum": MOST_TOKENS })),
            "temperature": maybe(json!({ "type": "number", "minimum": 0, "maximum": 2 })),
            "top_p": maybe(json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 })),
            "seed": maybe(seed()),
            "n": maybe(json!({ "type": "integer", "minimum": 1, "maximum": 1 })),
            "stop": { "oneOf": [{ "type": "null" }, stop, { "type": "array", "maxItems": MOST_STOPS, "items": stop }] },
            "stream": maybe(json!({ "type": "boolean" })),
            "user": maybe(json!({ "type": "string" })),
            "priority": maybe(json!({ "type": "string", "enum": ["low", "normal", "high"] })),
            "deadline_s": maybe(json!({ "type": "integer", "minimum": 1, "maximum": LONGEST_DEADLINE })),
        }),
        &["messages"],
    )
}
