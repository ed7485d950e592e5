//! What the words of a plan's tables mean, a line each.

/// What the cores' time goes to, as the tables' last columns.
pub const SHARES: [(&str, &str); 5] = [
    ("math", "% of the cores' time in operators that compute"),
    ("move", "% in operators that only move elements: joining, cutting, transposing"),
    ("call", "% in calls of the driver, and in changes of layout between shards"),
    ("wait", "% waiting for the memory, which the cores share"),
    ("idle", "% with nothing to do"),
];

const WORDS: [(&str, &str); 13] = [
    ("unchanged", "the graph as it came to the converter, in one run on one core"),
    ("one core", "the pack's shards, one after the other, on one core"),
    ("pipeline", "several items on their way through shards that are pinned to cores"),
    ("replicate", "a whole item on each core; the weights are in memory once"),
    ("split", "the shards of one stage on several cores at once, for one item"),
    ("mask", "the vendor's way: each operator on all cores; to compare with, not to run"),
    ("one item", "latency: from the start of one item, alone, to its end"),
    ("stream", "between the ends of two items, when many follow each other"),
    ("times", "how many times as fast as the unchanged graph on one core"),
    ("busy %", "share of a stream's time in which each core works"),
    ("resident", "memory of the NPU that is taken: weights, and what each core works in"),
    ("item", "one set of a model's inputs: a step of a picture, a prompt, a view"),
    ("*", "picked: the least latency, stream interval or memory, as --optimise asks"),
];

/// All of them.
pub fn words() -> String {
    let lines = WORDS.iter().chain(&SHARES).map(|(word, text)| format!("  {word:9}  {text}"));
    std::iter::once("Words, all figures modelled:".to_owned())
        .chain(lines)
        .collect::<Vec<_>>()
        .join("\n")
}
