//! No library spells one of the command's flags: programs that use the libraries have none, so errors say what is wrong and where, and
//! the command adds what to type (`src/remedy`). No string in a library's source may hold one; comments and documentation may.

use ra_ap_rustc_lexer::{FrontmatterAllowed, TokenKind, tokenize};
use std::path::{Path, PathBuf};

/// Crates that are no libraries for others.
const FREE: [&str; 1] = ["crates/cli"];

/// All literals of a source; comments and documentation are none.
fn literals(source: &str) -> Vec<&str> {
    let mut at = 0;
    let mut found = Vec::new();
    for token in tokenize(source, FrontmatterAllowed::No) {
        let text = &source[at..at + token.len as usize];
        at += text.len();
        if matches!(token.kind, TokenKind::Literal { .. }) {
            found.push(text);
        }
    }
    found
}

/// Whether two dashes and a letter stand in a text, where no third dash or letter is before them.
fn holds_a_flag(text: &str) -> bool {
    text.match_indices("--").any(|(at, dashes)| {
        let before = text[..at].chars().next_back();
        let after = text[at + dashes.len()..].chars().next();
        after.is_some_and(|c| c.is_ascii_lowercase())
            && !before.is_some_and(|c| c == '-' || c.is_alphanumeric())
    })
}

fn flags(source: &str) -> Vec<&str> {
    literals(source).into_iter().filter(|text| holds_a_flag(text)).collect()
}

/// The Rust files under a folder.
fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn no_library_spells_a_flag() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut folders = vec![root.join("converter"), root.join("validation")];
    folders.extend(std::fs::read_dir(root.join("crates")).unwrap().map(|e| e.unwrap().path()));
    folders.retain(|folder| FREE.iter().all(|free| *folder != root.join(free)));
    let mut files = Vec::new();
    folders.iter().for_each(|folder| rust_files(&folder.join("src"), &mut files));
    assert!(files.len() > 100, "{} files of source", files.len());
    files.sort();
    let mut spelt = Vec::new();
    for file in files {
        let source = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(&root).unwrap().display();
        spelt.extend(flags(&source).into_iter().map(|text| format!("{name}: {text}")));
    }
    assert!(spelt.is_empty(), "the remedy belongs in crates/cli/src/remedy:\n{}", spelt.join("\n"));
}

#[test]
fn flags_are_told_from_what_looks_like_them() {
    let source = r###"
        //! With --module.
        /// With --item.
        #[error("{path}: smaller tiles (--tile rows:R) may fit")]
        struct E;
        fn f() -> String {
            // With --comment.
            let rule = "---- a -- b --- x--y --9";
            format!(r#"use --other, {rule}"#)
        }
    "###;
    let found = flags(source);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("--tile") && found[1].contains("--other"), "{found:?}");
}
