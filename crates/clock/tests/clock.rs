//! The virtual clock against what can be worked out by hand.

use proptest::prelude::*;
use rockshard_clock::{Memory, Phase, Task, chrome_trace, simulate, timeline_svg};

const MEMORY: Memory = Memory { core_bytes_per_second: 11.7e9, shared_bytes_per_second: 19.3e9 };

fn task(cores: &[u8], needs: &[usize], micros: f64, streaming: f64) -> Task {
    let phases = vec![Phase { micros, streaming }];
    Task {
        name: "t".into(),
        model: "m".into(),
        item: 0,
        cores: cores.to_vec(),
        needs: needs.to_vec(),
        phases,
    }
}

#[test]
fn one_core_does_one_task_at_a_time() {
    let tasks = [task(&[0], &[], 10.0, 0.0), task(&[0], &[], 5.0, 5.0), task(&[1], &[1], 4.0, 0.0)];
    let schedule = simulate(&tasks, MEMORY);
    let times: Vec<(f64, f64)> = schedule.spans.iter().map(|s| (s.start_us, s.end_us)).collect();
    assert_eq!(times, [(0.0, 10.0), (10.0, 15.0), (15.0, 19.0)]);
    assert_eq!(schedule.critical_path(&tasks), [0, 1, 2]);
    assert_eq!(schedule.busy_us(&tasks, 0, 5.0, 12.0), 7.0);
}

#[test]
fn three_cores_that_only_stream_reach_the_shared_rate() {
    for (count, expected) in [(1, 1.0), (2, 2.0 * 11.7 / 19.3), (3, 3.0 * 11.7 / 19.3)] {
        let tasks: Vec<Task> = (0..count).map(|c| task(&[c], &[], 100.0, 100.0)).collect();
        let total = simulate(&tasks, MEMORY).total_us();
        assert!((total / 100.0 - expected).abs() < 1e-9, "{count}: {total}");
    }
}

#[test]
fn cores_that_compute_do_not_hinder_each_other() {
    let tasks =
        [task(&[0], &[], 100.0, 0.0), task(&[1], &[], 100.0, 100.0), task(&[2], &[], 100.0, 0.0)];
    let schedule = simulate(&tasks, MEMORY);
    assert_eq!(schedule.total_us(), 100.0);
    assert_eq!(schedule.memory_wait_us(&tasks), 0.0);
}

#[test]
fn a_phase_meets_only_what_runs_beside_it() {
    // The second core streams during the first half only.
    let mut first = task(&[0], &[], 0.0, 0.0);
    first.phases =
        vec![Phase { micros: 50.0, streaming: 50.0 }, Phase { micros: 50.0, streaming: 50.0 }];
    let tasks = [first, task(&[1], &[], 50.0, 50.0)];
    let schedule = simulate(&tasks, MEMORY);
    let slow = 2.0 * 11.7 / 19.3;
    assert!((schedule.total_us() - 50.0 * (slow + 1.0)).abs() < 1e-9, "{}", schedule.total_us());
    assert!((schedule.memory_wait_us(&tasks) - 2.0 * 50.0 * (slow - 1.0)).abs() < 1e-9);
}

#[test]
fn a_task_of_several_cores_waits_for_all_and_holds_the_queue() {
    let tasks =
        [task(&[0], &[], 10.0, 0.0), task(&[0, 1, 2], &[], 5.0, 0.0), task(&[1], &[], 3.0, 0.0)];
    let schedule = simulate(&tasks, MEMORY);
    assert_eq!(schedule.spans[1].start_us, 10.0);
    // Core 1 was idle, but its queue is first in, first out.
    assert_eq!(schedule.spans[2].start_us, 15.0);
}

#[test]
fn host_work_does_not_take_a_core() {
    let tasks = [
        task(&[], &[], 0.0, 0.0),
        task(&[], &[], 7.0, 0.0),
        task(&[0], &[0], 2.0, 0.0),
        task(&[0], &[1], 2.0, 0.0),
    ];
    let schedule = simulate(&tasks, MEMORY);
    assert_eq!(schedule.spans[2].end_us, 2.0);
    assert_eq!(schedule.spans[3].start_us, 7.0);
}

#[test]
fn timelines_name_the_tasks_and_say_modelled() {
    let mut tasks =
        vec![task(&[], &[], 0.0, 0.0), task(&[0], &[0], 1000.0, 0.0), task(&[1], &[1], 500.0, 0.0)];
    tasks[1].name = "a<b".into();
    let schedule = simulate(&tasks, MEMORY);
    let svg = timeline_svg("step", "modelled", &tasks, &schedule);
    assert!(
        svg.contains("a&lt;b")
            && svg.contains("step: 1.50 ms modelled")
            && svg.contains("on the critical path"),
        "{svg}"
    );
    assert!(svg.contains("core 1") && svg.contains("host"));
    // Nothing has a place that a narrower or wider page would cut.
    assert!(!svg.contains("viewBox") && svg.contains("x=\"99.50%\"") && svg.contains("\"end\""));
    for drawn in
        svg.split('<').filter(|d| d.starts_with("rect class=\"bar") || d.starts_with("text"))
    {
        assert!(drawn.contains("%\"") || drawn.contains("x=\"18\""), "{drawn}");
    }
    let trace = chrome_trace(&tasks, &schedule);
    let events = trace["traceEvents"].as_array().unwrap();
    assert_eq!(events.iter().filter(|e| e["ph"] == "X").count(), 3);
    assert_eq!(trace["otherData"]["time"], "modelled");
    assert_eq!(events.iter().find(|e| e["name"] == "a<b").unwrap()["dur"], 1000.0);
}

fn random_tasks() -> impl Strategy<Value = Vec<Task>> {
    let one = (
        prop::collection::vec(0u8..3, 0..3),
        prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        0.0..100.0f64,
        0.0..1.0f64,
    );
    prop::collection::vec(one, 1..30).prop_map(|list| {
        let of = |(i, (mut cores, needs, micros, share)): (
            usize,
            (Vec<u8>, Vec<prop::sample::Index>, f64, f64),
        )| {
            cores.sort_unstable();
            cores.dedup();
            let needs = if i == 0 {
                Vec::new()
            } else {
                needs
                    .iter()
                    .map(|n| n.index(i))
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .collect()
            };
            Task { needs, ..task(&cores, &[], micros, micros * share) }
        };
        list.into_iter().enumerate().map(of).collect()
    })
}

proptest! {
    #[test]
    fn every_task_runs_once_after_what_it_needs_and_alone_on_its_cores(tasks in random_tasks()) {
        let schedule = simulate(&tasks, MEMORY);
        let spans = &schedule.spans;
        for (i, (span, task)) in spans.iter().zip(&tasks).enumerate() {
            prop_assert_eq!(span.task, i);
            prop_assert!(span.end_us - span.start_us >= task.micros() - 1e-6);
            prop_assert!(span.end_us - span.start_us <= task.micros() * 3.0 * 11.7 / 19.3 + 1e-6);
            prop_assert!(task.needs.iter().all(|&n| spans[n].end_us <= span.start_us + 1e-9));
            for (other, with) in spans.iter().zip(&tasks).take(i) {
                let shared = task.cores.iter().any(|c| with.cores.contains(c));
                prop_assert!(!shared || other.end_us <= span.start_us + 1e-9 || span.end_us <= other.start_us + 1e-9);
            }
        }
        // No core is idle while the head of its queue could run: work is conserved on the critical path.
        let path = schedule.critical_path(&tasks);
        prop_assert!(spans[path[0]].start_us == 0.0);
    }
}
