//! The virtual clock's event loop. Between two events every running phase has a constant rate, so the next event is the first end of a
//! phase, and time jumps to it.

use crate::{Memory, Phase, Schedule, Span, Task};
use std::collections::VecDeque;

/// A task that has started.
struct Running {
    task: usize,
    start_us: f64,
    phase: usize,
    /// Microseconds of the phase that are left, as if nothing else ran.
    left: f64,
}

/// Let the tasks run.
///
/// A task is queued on its cores when all it needs has ended, in the order of the tasks where several are ready at once. It starts when it is
/// at the head of the queue of each of its cores and these are idle.
///
/// # Panics
/// A task needs one that does not come before it.
pub fn simulate(tasks: &[Task], memory: Memory) -> Schedule {
    let lanes = tasks.iter().flat_map(|t| &t.cores).max().map_or(0, |&c| usize::from(c) + 1);
    run(tasks, lanes, memory, |task, _| tasks[task].cores.clone())
}

/// As [`simulate`], of tasks that any of `cores` cores can run, whatever cores they name: each goes to the one with the fewest tasks at the time
/// when it is ready, as items of replicated runs do.
///
/// # Panics
/// As [`simulate`].
pub fn simulate_replicated(tasks: &[Task], cores: u8, memory: Memory) -> Schedule {
    let lanes = usize::from(cores.max(1));
    run(tasks, lanes, memory, |_, load| {
        vec![(0..lanes).min_by_key(|&lane| load[lane]).unwrap_or(0) as u8]
    })
}

/// Let the tasks run on the cores that `place` names when they are ready, given how many tasks each core has.
fn run(
    tasks: &[Task],
    lanes: usize,
    memory: Memory,
    mut place: impl FnMut(usize, &[usize]) -> Vec<u8>,
) -> Schedule {
    let mut waiting: Vec<usize> = Vec::with_capacity(tasks.len());
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    for (i, task) in tasks.iter().enumerate() {
        assert!(
            task.needs.iter().all(|&n| n < i),
            "task {i} needs one that does not come before it"
        );
        waiting.push(task.needs.len());
        task.needs.iter().for_each(|&n| users[n].push(i));
    }
    let mut placed: Vec<Vec<u8>> = vec![Vec::new(); tasks.len()];
    let mut load = vec![0; lanes];
    let mut queues: Vec<VecDeque<usize>> = vec![VecDeque::new(); lanes];
    let mut busy = vec![false; lanes];
    let mut running: Vec<Running> = Vec::new();
    let mut spans: Vec<Span> = vec![Span::default(); tasks.len()];
    let mut ready: Vec<usize> = (0..tasks.len()).filter(|&i| waiting[i] == 0).collect();
    let mut now = 0.0f64;
    loop {
        for task in ready.drain(..) {
            spans[task].ready_us = now;
            placed[task] = place(task, &load);
            placed[task].iter().for_each(|&c| load[usize::from(c)] += 1);
            match &placed[task][..] {
                [] => running.push(begin(tasks, task, now)),
                cores => cores.iter().for_each(|&c| queues[usize::from(c)].push_back(task)),
            }
        }
        for core in 0..lanes {
            let Some(&task) = queues[core].front() else { continue };
            let cores = &placed[task];
            if cores
                .iter()
                .all(|&c| !busy[usize::from(c)] && queues[usize::from(c)].front() == Some(&task))
            {
                for &c in cores {
                    busy[usize::from(c)] = true;
                    queues[usize::from(c)].pop_front();
                }
                running.push(begin(tasks, task, now));
            }
        }
        if running.is_empty() {
            break;
        }
        let phases: Vec<Phase> =
            running.iter().map(|r| under_way(&tasks[r.task], &placed[r.task], r.phase)).collect();
        let stretch = memory.stretch(&phases);
        let step =
            running.iter().zip(&stretch).map(|(r, s)| r.left * s).fold(f64::INFINITY, f64::min);
        now += step;
        for (r, s) in running.iter_mut().zip(&stretch) {
            // The phase that decided the step is done, whatever rounding says.
            r.left = if r.left * s <= step { 0.0 } else { r.left - step / s };
            if r.left == 0.0 {
                r.phase += 1;
                r.left = tasks[r.task].phases.get(r.phase).map_or(0.0, |p| p.micros);
            }
        }
        let (done, on): (Vec<Running>, Vec<Running>) =
            running.into_iter().partition(|r| r.phase >= tasks[r.task].phases.len());
        running = on;
        for r in done {
            spans[r.task] =
                Span { task: r.task, start_us: r.start_us, end_us: now, ..spans[r.task] };
            for &core in &placed[r.task] {
                busy[usize::from(core)] = false;
                load[usize::from(core)] -= 1;
            }
            for &user in &users[r.task] {
                waiting[user] -= 1;
                if waiting[user] == 0 {
                    ready.push(user);
                }
            }
        }
        ready.sort_unstable();
    }
    Schedule { spans }
}

/// What the memory sees of a task; of the host's work nothing is modelled but its time.
fn under_way(task: &Task, cores: &[u8], phase: usize) -> Phase {
    let phase = task.phases.get(phase).copied().unwrap_or_default();
    if cores.is_empty() { Phase { streaming: 0.0, ..phase } } else { phase }
}

fn begin(tasks: &[Task], task: usize, now: f64) -> Running {
    Running {
        task,
        start_us: now,
        phase: 0,
        left: tasks[task].phases.first().map_or(0.0, |p| p.micros),
    }
}
