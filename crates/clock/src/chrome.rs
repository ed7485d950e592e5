//! A schedule for the trace viewers of Chrome and Perfetto.

use crate::{Lane, Schedule, Task};
use serde_json::{Value, json};

/// The modelled schedule as JSON in the Trace Event Format, which Perfetto and `chrome://tracing` show: a thread a core, one for the host.
pub fn chrome_trace(tasks: &[Task], schedule: &Schedule) -> Value {
    let thread = |lane| match lane {
        Lane::Host => 0,
        Lane::Core(n) => 1 + u32::from(n),
    };
    let mut lanes: Vec<Lane> = tasks.iter().flat_map(lanes_of).collect();
    lanes.sort_unstable();
    lanes.dedup();
    let name = |lane: &Lane| match lane {
        Lane::Host => "host".to_owned(),
        Lane::Core(n) => format!("NPU core {n} (modelled)"),
    };
    let mut events: Vec<Value> = lanes
        .iter()
        .map(|lane| json!({ "ph": "M", "pid": 1, "tid": thread(*lane), "name": "thread_name", "args": { "name": name(lane) } }))
        .collect();
    for span in &schedule.spans {
        let task = &tasks[span.task];
        for lane in lanes_of(task) {
            events.push(json!({
                "ph": "X", "pid": 1, "tid": thread(lane), "name": task.name, "cat": task.model,
                "ts": span.start_us, "dur": span.end_us - span.start_us,
                "args": { "item": task.item, "waited_us": span.start_us - span.ready_us, "alone_us": task.micros() },
            }));
        }
    }
    json!({ "displayTimeUnit": "ms", "otherData": { "time": "modelled" }, "traceEvents": events })
}

fn lanes_of(task: &Task) -> Vec<Lane> {
    if task.cores.is_empty() {
        vec![Lane::Host]
    } else {
        task.cores.iter().map(|&c| Lane::Core(c)).collect()
    }
}
