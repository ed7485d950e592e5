//! What stands in a bar of a timeline: as much of a task's name as there is room for, in whole words, or nothing.

use crate::Task;

/// Room that a letter of a name takes at most, on average, and the margins of a bar.
const CHARACTER: f64 = 6.3;
const MARGINS: f64 = 6.0;

/// The longest of a task's names that `pixels` have room for. A shard `MODEL-NUMBER-a.b.0` of a model is also called `NUMBER a.b.0`,
/// `NUMBER b.0` and `NUMBER`.
pub(crate) fn label(task: &Task, pixels: f64) -> Option<String> {
    let room = ((pixels - MARGINS) / CHARACTER).floor().max(0.0) as usize;
    names(task).into_iter().find(|name| name.chars().count() <= room)
}

/// A task's names, the longest first.
fn names(task: &Task) -> Vec<String> {
    let mut names = vec![task.name.clone()];
    let numbered = task.name.strip_prefix(task.model.as_str()).and_then(|rest| {
        // The model's resolution may stand before the number.
        let at = rest
            .split('-')
            .position(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()))?;
        let mut parts = rest.splitn(at + 2, '-').skip(at);
        Some((parts.next()?, parts.next().unwrap_or("")))
    });
    let Some((number, mut rest)) = numbered else { return names };
    while !rest.is_empty() {
        // A mere index says nothing of what it is of.
        if rest.starts_with(|c: char| !c.is_ascii_digit()) {
            names.push(format!("{number} {rest}"));
        }
        rest = rest.split_once('.').map_or("", |(_, rest)| rest);
    }
    names.push(number.to_owned());
    names
}

/// Text as SVG holds it.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shortened_by_whole_words_and_left_out_where_none_fits() {
        let task = |model: &str, name: &str| Task {
            name: name.into(),
            model: model.into(),
            ..Task::default()
        };
        let shard = task("unet", "unet-128x128-33-up_blocks.2.attentions.0");
        for (pixels, text) in [
            (300.0, Some("unet-128x128-33-up_blocks.2.attentions.0")),
            (200.0, Some("33 up_blocks.2.attentions.0")),
            (170.0, Some("33 attentions.0")),
            (101.0, Some("33 attentions.0")),
            (100.0, Some("33")),
            (20.0, Some("33")),
            (18.0, None),
        ] {
            assert_eq!(label(&shard, pixels).as_deref(), text, "{pixels}");
        }
        let host = task("text_encoder", "text_encoder-00-host");
        assert_eq!(label(&host, 60.0).as_deref(), Some("00 host"));
        assert_eq!(label(&task("m", "exchange"), 60.0).as_deref(), Some("exchange"));
        assert_eq!(label(&task("m", "exchange"), 50.0), None);
    }
}
