//! The runs that make one picture, in a row: where a pack's networks are planned one by one, this puts them together.

use crate::{Mode, Plan, tasks};
use rockshard_clock::Task;

/// Parts of a picture in the order they run, where a pack has them; the U-Net runs once a step.
const PARTS: [&str; 3] = ["text_encoder", "unet", "vae_decoder"];

/// The runs of one picture at a size: the prompt, `steps` steps, the decoder, each in the mode with the least time for one item. None where
/// the pack does not make pictures.
pub fn picture_tasks(plan: &Plan, size: Option<[u32; 2]>, steps: usize) -> Option<Vec<Task>> {
    let at = |name: &str| {
        let fits = |r: Option<[u32; 2]>| r.is_none() || size.is_none() || r == size;
        plan.models.iter().position(|m| m.model == name && fits(m.resolution))
    };
    at("unet")?;
    let mut all: Vec<Task> = Vec::new();
    let mut before: Vec<usize> = Vec::new();
    for name in PARTS {
        let Some(index) = at(name) else { continue };
        let runs = plan.models[index].figures.iter().filter(|f| f.mode != Mode::Mask);
        let Some(best) = runs.min_by(|a, b| a.latency_us.total_cmp(&b.latency_us)) else {
            continue;
        };
        for _ in 0..if name == "unet" { steps } else { 1 } {
            let base = all.len();
            for mut task in tasks(&plan.costs[index], best.mode, best.cores, 1) {
                task.needs.iter_mut().for_each(|n| *n += base);
                if task.needs.is_empty() {
                    task.needs.clone_from(&before);
                }
                all.push(task);
            }
            before = (base..all.len()).collect();
        }
    }
    Some(all)
}
