//! Another chip, and faults of a board, by the environment. It is read once a process, so each test runs in one of its own.
#![allow(unsafe_code)]

mod common;

use common::{ask, data, expected, get, init, inputs, open, set, whole};
use rknnrt::*;
use rockshard_cost::Rk3588;
use rockshard_import::{ImportOptions, import_file};
use rockshard_rknn_abi::{MemSize, dtype, format, query};
use std::process::Command;
use std::ptr::null_mut;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

const NAME: &str = "conv-residual";

/// Run the test of a name in a process with these variables.
fn with(name: &str, variables: &[(&str, String)], body: fn()) {
    const CHILD: &str = "ROCKSHARD_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .envs(variables.iter().cloned())
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn chip(description: String) -> [(&'static str, String); 1] {
    [("ROCKSHARD_RK3588", description)]
}

fn dup(mut from: u64) -> Result<u64, i32> {
    let mut made = 0;
    // SAFETY: both are alive.
    match unsafe { rknn_dup_context(&raw mut from, &raw mut made) } {
        0 => Ok(made),
        code => Err(code),
    }
}

#[test]
fn contexts_share_an_address_space_and_duplicates_the_weights() {
    let graph = import_file(&data("conv-residual.onnx"), &ImportOptions::fixed()).unwrap();
    let cost = Rk3588::default().graph(&graph);
    let space = cost.weight_bytes + 3 * cost.internal_bytes + 100;
    with(
        "contexts_share_an_address_space_and_duplicates_the_weights",
        &chip(format!("{{\"address_space\": {space}}}")),
        || {
            let first = open(NAME);
            let more = [dup(first), dup(first)].map(Result::unwrap);
            assert_eq!(dup(first), Err(-4), "activations of a fourth");
            assert_eq!(init(&data("conv-residual.onnx"), 0), Err(-4), "weights a second time");
            let given = inputs(NAME, 2);
            assert_eq!(whole(more[1], &given, 1024), expected(NAME, &given));
            let memory = rknn_create_mem(first, 100);
            assert!(!memory.is_null());
            assert!(rknn_create_mem(first, 1).is_null());
            assert_eq!(rknn_destroy_mem(first, memory), 0);
            assert_eq!(rknn_destroy(first), 0);
            assert!(dup(more[0]).is_ok(), "the first one's activations are free again");
            assert_eq!(more.map(|context| rknn_destroy(context)), [0, 0]);
        },
    );
}

#[test]
fn a_run_that_hangs_times_out_and_the_next_one_runs() {
    with(
        "a_run_that_hangs_times_out_and_the_next_one_runs",
        &[("ROCKSHARD_RKNNRT_HANG", "1".into())],
        || {
            let (context, given) = (open(NAME), inputs(NAME, 2));
            let wanted = expected(NAME, &given);
            assert_eq!(whole(context, &given, 1024), wanted);
            assert_eq!(rknn_run(context, null_mut()), -2);
            assert_eq!(get(context, 1024), Err(-9), "nothing came of it");
            assert_eq!(whole(context, &given, 1024), wanted);
        },
    );
}

#[test]
fn sram_is_what_the_board_gives() {
    with("sram_is_what_the_board_gives", &chip("{\"sram_bytes\": 978944}".into()), || {
        let found = ask(open(NAME), query::MEM_SIZE, MemSize::default()).unwrap();
        assert_eq!((found.total_sram_size, found.free_sram_size), (978_944, 978_944));
    });
}

#[test]
fn a_description_that_is_none_is_refused() {
    with("a_description_that_is_none_is_refused", &chip("{\"colour\": 1}".into()), || {
        assert_eq!(init(&data("conv-residual.onnx"), 0), Err(-3));
    });
}

/// Two threads use one context in step, 20 times each: calls that were refused, and results that are wrong.
fn shared() -> [usize; 2] {
    const TIMES: usize = 20;
    let (context, counts, step) =
        (open(NAME), [AtomicUsize::new(0), AtomicUsize::new(0)], Barrier::new(2));
    let given = inputs(NAME, 2);
    std::thread::scope(|scope| {
        for order in [[0, 1], [1, 0]].map(|order| order.map(|i: usize| given[i].clone())) {
            let (counts, step) = (&counts, &step);
            scope.spawn(move || {
                let wanted = expected(NAME, &order);
                for _ in 0..TIMES {
                    let mut codes: Vec<i32> = (0..2)
                        .map(|i| {
                            set(
                                context,
                                i,
                                order[i as usize].bytes(),
                                dtype::FLOAT16,
                                format::NCHW,
                                0,
                            )
                        })
                        .collect();
                    step.wait();
                    codes.push(rknn_run(context, null_mut()));
                    step.wait();
                    let found = get(context, 1024);
                    codes.extend(found.as_ref().err());
                    counts[0]
                        .fetch_add(codes.iter().filter(|c| **c != 0).count(), Ordering::SeqCst);
                    counts[1].fetch_add(found.is_ok_and(|f| f != wanted).into(), Ordering::SeqCst);
                    step.wait();
                }
            });
        }
    });
    counts.map(AtomicUsize::into_inner)
}

#[test]
fn threads_that_share_a_context_are_told_so() {
    let [refused, _] = shared();
    assert!(refused >= 20, "{refused}");
}

#[test]
fn threads_that_share_a_context_get_wrong_results_where_the_board_says_nothing() {
    let variables = chip("{\"silent_overlap\": true}".into());
    with(
        "threads_that_share_a_context_get_wrong_results_where_the_board_says_nothing",
        &variables,
        || {
            let [refused, wrong] = shared();
            assert!(refused == 0 && wrong >= 20, "{refused} refused, {wrong} wrong");
        },
    );
}
