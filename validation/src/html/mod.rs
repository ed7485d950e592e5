//! The report as one page that needs nothing else: no script, no network, readable in print, in the dark and on a phone.

mod chart;
mod page;

use crate::{Report, ReportError};
use base64::Engine;
use minijinja::{Environment, context};
use serde::Serialize;
use std::path::Path;

/// What a caller may add to the page.
#[derive(Clone, Debug, Default)]
pub struct ReportExtras {
    /// An SVG of when each core ran what. It becomes part of the page as it is, so it must come from a trusted writer.
    pub timeline_svg: Option<String>,
    /// Pictures with their captions, as the bytes of PNG files.
    pub pictures: Vec<(String, Vec<u8>)>,
    /// What to do about what fails.
    pub next_steps: Vec<NextStep>,
}

/// What to do about layers, or a model, that fail for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NextStep {
    /// The model; `language` for a pack's language model.
    pub model: String,
    /// Names of its layers that fail; none where it is not about layers.
    pub layers: Vec<String>,
    /// What is likely wrong.
    pub likely: String,
    /// What to do, each with what to type for it, if anything.
    pub remedies: Vec<Remedy>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// What for.
    pub what: String,
    /// What to type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

#[derive(Serialize)]
struct Picture<'a> {
    caption: &'a str,
    data: String,
}

/// The report as an HTML page.
///
/// # Errors
/// The timeline is not SVG.
pub fn render_html(report: &Report, extras: &ReportExtras) -> Result<String, ReportError> {
    let timeline = match &extras.timeline_svg {
        None => None,
        // What stands before the element (an XML declaration) has no place inside a page.
        Some(text) => Some(&text[text.find("<svg").ok_or(ReportError::Timeline)?..]),
    };
    let encode = |png: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(png);
    let pictures: Vec<_> = extras
        .pictures
        .iter()
        .map(|(caption, png)| Picture { caption, data: encode(png) })
        .collect();
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    // The name's ending turns HTML escaping on.
    environment.add_template("report.html", include_str!("report.html"))?;
    let page = page::page(report, &extras.next_steps);
    Ok(environment.get_template("report.html")?.render(context! { page, timeline, pictures })?)
}

/// Write a report as a page, and as JSON beside it: the same name ending in `.json`.
///
/// # Errors
/// As [`render_html`], and a file that cannot be written.
pub fn write_report(
    report: &Report,
    extras: &ReportExtras,
    path: &Path,
) -> Result<(), ReportError> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text)
            .map_err(|source| ReportError::Write { path: path.to_owned(), source })
    };
    write(path, render_html(report, extras)?)?;
    write(&path.with_extension("json"), report.to_json())
}
