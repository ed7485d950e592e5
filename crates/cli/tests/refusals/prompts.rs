//! Prompts that are refused before a pack is looked at, and what is said to type instead.

use crate::scratch::Scratch;

#[test]
fn a_lora_in_a_prompt_is_told_where_it_goes() {
    let scratch = Scratch::new();
    let lora = [
        "\"<lora:add_detail:0.8>\"",
        "when it is converted",
        "`rockshard convert MODEL --out PACK --lora add_detail.safetensors:0.8`",
    ];
    scratch.refuses("generate pack --prompt red<lora:add_detail:0.8> --out x.png", &lora);
    scratch.refuses("generate pack --prompt red --negative <lora:add_detail:0.8>", &lora);
    scratch.refuses(
        "stream pack --prompt red --negative <lora:add_detail:0.8> --frames 1 --to x",
        &lora,
    );
    scratch.refuses("demo --prompt <lora:add_detail:0.8> --out demo", &lora);
    scratch
        .refuses("generate pack --prompt <lora:style> --out x.png", &["--lora style.safetensors`"]);
}

#[test]
fn syntax_of_other_programs_is_named() {
    let scratch = Scratch::new();
    for (prompt, part) in [
        ("[cat:dog:0.5]", "changing the prompt between steps"),
        ("[cat|dog]", "alternating words between steps"),
        ("cat,BREAK,dog", "starting a new chunk of tokens"),
        ("cat,AND,dog", "composing a picture of several prompts"),
        ("(cat:1,3)", "write it like 1.3"),
    ] {
        scratch.refuses(&format!("generate pack --prompt {prompt} --out x.png"), &[part]);
        scratch.refuses(&format!("stream pack --prompt {prompt} --frames 1 --to x"), &[part]);
    }
}
