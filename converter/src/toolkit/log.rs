//! The verbose log of rknn-toolkit2's compiler: its table of layers, its memory totals and its complaints.

use rockshard_manifest::CompiledLayer;

/// What a log says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Log {
    /// Layers of the compiled graph in running order, without the graph's own inputs and outputs.
    pub layers: Vec<CompiledLayer>,
    /// `Total Internal Memory Size`, in bytes.
    pub internal_bytes: Option<u64>,
    /// `Total Weight Memory Size`, in bytes.
    pub weight_bytes: Option<u64>,
    /// Lines of level E, without time and colour, each once.
    pub errors: Vec<String>,
    /// Lines of level W from the compiler proper.
    pub warnings: Vec<String>,
}

impl Log {
    /// Read a log. Lines of another form are passed over.
    pub fn parse(text: &str) -> Self {
        let mut log = Log::default();
        let mut in_table = false;
        for line in text.lines() {
            let line = without_colour(line);
            let (level, rest) = line.split_once(' ').unwrap_or((line.as_str(), ""));
            let body = without_clock(rest.trim_start());
            match level {
                "E" => push_once(&mut log.errors, body),
                "W" if rest.trim_start().starts_with("RKNN:") => push_once(&mut log.warnings, body),
                _ => {}
            }
            if body.starts_with("ID") && body.contains("OpType") && body.contains("FullName") {
                // Printed once for each attempt; the last is the one that was built.
                log.layers.clear();
                in_table = true;
            } else if in_table && let Some(row) = layer(body) {
                in_table = row.op != OUTPUT;
                if row.op != INPUT && row.op != OUTPUT {
                    log.layers.push(row);
                }
            } else if let Some(size) = body.strip_prefix("Total Internal Memory Size:") {
                log.internal_bytes = bytes(size);
            } else if let Some(size) = body.strip_prefix("Total Weight Memory Size:") {
                log.weight_bytes = bytes(size);
            }
        }
        log
    }
}

const INPUT: &str = "InputOperator";
const OUTPUT: &str = "OutputOperator";

fn push_once(list: &mut Vec<String>, line: &str) {
    if !line.is_empty() && !list.iter().any(|l| l == line) {
        list.push(line.to_owned());
    }
}

/// Without terminal colours (`ESC [ ... m`).
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\u{1b}') {
        plain.push_str(&rest[..at]);
        rest = rest[at..].split_once('m').map_or("", |(_, r)| r);
    }
    plain + rest
}

/// `RKNN: [10:25:39.154] text` without what comes before the text.
fn without_clock(line: &str) -> &str {
    let Some(rest) = line.strip_prefix("RKNN: [") else { return line };
    rest.split_once("] ").map_or(line, |(_, text)| text)
}

/// A row: ID, operator, type, target, input shapes, output shape, DDR/NPU/total cycles, kilobytes read and written, name.
fn layer(row: &str) -> Option<CompiledLayer> {
    let mut words = row.split_whitespace();
    words.next()?.parse::<u32>().ok()?;
    let op = words.next()?.to_owned();
    let _dtype = words.next()?;
    let target = words.next().filter(|t| matches!(*t, "CPU" | "NPU" | "GPU"))?.to_owned();
    let (_inputs, output) = (words.next()?, words.next()?.to_owned());
    let cycles: Vec<u64> =
        words.next()?.split('/').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let kilobytes: f64 = words.next()?.parse().ok()?;
    let name = words.collect::<Vec<_>>().join(" ");
    let name = name.strip_prefix(&format!("{op}:")).unwrap_or(&name).to_owned();
    Some(CompiledLayer {
        name,
        op,
        target,
        output,
        cycles: cycles.try_into().ok()?,
        moved_bytes: (kilobytes * 1024.0) as u64,
    })
}

/// `358.188KB` in bytes; from a million on it is `1.48378e+06KB`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "B" => 1.0,
        "KB" => 1024.0,
        "MB" => 1024.0 * 1024.0,
        "GB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some((number.trim().parse::<f64>().ok()? * unit) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
I rknn building ...
\u{1b}[1;33mW\u{1b}[0m \u{1b}[1;33mload_onnx: The config.mean_values is None, zeros will be set for input 0!\u{1b}[0m
W RKNN: [10:25:39.126] a layer was moved
W RKNN: [10:25:39.127] a layer was moved
E RKNN: [10:25:39.128] something was refused
D RKNN: [10:25:39.154] ID   OpType             DataType Target InputShape           OutputShape   Cycles(DDR/NPU/Total)    RW(KB)       FullName        
D RKNN: [10:25:39.154] ---------------------------------------------------------------
D RKNN: [10:25:39.154] 0    InputOperator      FLOAT16  CPU    \\                    (1,256,64)    0/0/0                    0            InputOperator:x
D RKNN: [10:25:39.154] 1    Conv               FLOAT16  NPU    (1,96,1,77),(64,96)  (1,64,1,77)   1562/960/1562            26           Conv:/attn/to_k/MatMul#2
D RKNN: [10:25:39.154] 2    Transpose          FLOAT16  CPU    (1,64,1,77)          (1,77,1,64)   0/0/0                    9.5          Transpose:/attn/t
D RKNN: [10:25:39.154] 3    OutputOperator     FLOAT16  CPU    (1,77,1,64)          \\             0/0/0                    32           OutputOperator:y
D RKNN: [10:25:39.156] 19  OutputOperator /Add_1_output_0   FLOAT16   UNDEFINED    (1,256,64)   (1,256,64)    | 0x00010000 0x00018000 0x00008000
D RKNN: [10:25:39.156] Total Internal Memory Size: 358.188KB
D RKNN: [10:25:39.156] Total Weight Memory Size: 1.5MB
";

    #[test]
    fn table_totals_and_complaints_are_read() {
        let log = Log::parse(SAMPLE);
        assert_eq!(log.layers.len(), 2);
        assert_eq!(log.layers[0].name, "/attn/to_k/MatMul#2");
        assert_eq!(
            (log.layers[0].op.as_str(), log.layers[0].target.as_str(), log.layers[0].cycles),
            ("Conv", "NPU", [1562, 960, 1562])
        );
        assert_eq!(log.layers[0].moved_bytes, 26 * 1024);
        assert_eq!((log.layers[1].target.as_str(), log.layers[1].moved_bytes), ("CPU", 9728));
        assert_eq!((log.internal_bytes, log.weight_bytes), (Some(366_784), Some(1_572_864)));
        assert_eq!(log.errors, ["something was refused"]);
        assert_eq!(log.warnings, ["a layer was moved"]);
    }

    #[test]
    fn totals_of_a_gigabyte_are_read() {
        assert_eq!(bytes(" 1.48378e+06KB"), Some(1_519_390_720));
        assert_eq!(
            (bytes("12B"), bytes("0.5GB"), bytes("e+06"), bytes("")),
            (Some(12), Some(1 << 29), None, None)
        );
    }

    #[test]
    fn a_log_cut_anywhere_is_read() {
        for end in 0..SAMPLE.len() {
            let log = Log::parse(&SAMPLE[..end]);
            assert!(log.layers.len() <= 2);
        }
        assert_eq!(Log::parse("\u{1b}[1;33"), Log::default());
    }
}
