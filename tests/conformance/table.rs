//! The tables of docs/spec-conformance.md.

use std::path::{Path, PathBuf};

pub const PAGE: &str = "docs/spec-conformance.md";

/// The columns of each table.
const COLUMNS: [&str; 4] = ["property", "tests", "kernel", "runc"];

pub struct Row {
    pub line: usize,
    /// The fields that it is about; none if it is about something else.
    pub fields: Vec<String>,
    pub tests: Vec<String>,
}

pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns the rows, or what is wrong with their form.
pub fn rows() -> Result<Vec<Row>, Vec<String>> {
    let text = std::fs::read_to_string(source(PAGE)).expect("the page");
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for (line, cells) in (1..).zip(text.lines()).filter_map(|(line, text)| Some((line, cells(text)?))) {
        if cells == COLUMNS || cells.iter().all(|cell| cell.chars().all(|c| c == '-')) {
            continue;
        }
        let [property, tests, ..] = &cells[..] else { panic!("line {line}: {cells:?}") };
        if cells.len() != COLUMNS.len() || cells.iter().any(String::is_empty) {
            wrong.push(format!("{PAGE}:{line}: not a value in each of {COLUMNS:?}"));
        }
        rows.push(Row { line, fields: quoted(property), tests: quoted(tests) });
    }
    if wrong.is_empty() {
        Ok(rows)
    } else {
        Err(wrong)
    }
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// The words in backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A test by its name: `rooted::times::a_name`, as `cargo test --test rooted times::a_name` has it, or `lib::…`.
pub struct Named<'a> {
    pub group: &'a str,
    /// Without the group.
    pub path: &'a str,
    pub name: &'a str,
}

impl<'a> Named<'a> {
    pub fn parse(text: &'a str) -> Option<Self> {
        let (group, path) = text.split_once("::")?;
        Some(Named { group, path, name: path.rsplit("::").next()? })
    }

    /// Whether its file has it as a test, alone or in a list of cases.
    pub fn exists(&self) -> bool {
        self.files().iter().any(|file| {
            let Ok(text) = std::fs::read_to_string(file) else { return false };
            let Some(at) = text.find(&format!("fn {}(", self.name)) else { return false };
            let attributes = text[..at].rsplit("\n\n").next().unwrap_or_default();
            let alone = attributes.contains("#[test]") && !attributes.contains("#[ignore");
            alone || is_case(&text, self.name)
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        let modules = self.path.strip_suffix(self.name).unwrap_or_default().trim_end_matches("::");
        let below = modules.replace("::", "/");
        let folder = match self.group {
            "lib" => source("src"),
            group => source("tests").join(group),
        };
        let file = folder.join(&below).with_extension("rs");
        let inside = folder.join(below.strip_suffix("tests").unwrap_or(&below));
        vec![
            file,
            folder.join(&below).join("mod.rs"),
            folder.join(&below).join("main.rs"),
            inside.join("mod.rs"),
            inside.with_extension("rs"),
        ]
    }
}

/// Whether a list of cases has the name: `cases! { … }`, `rootless! { … }`.
fn is_case(text: &str, name: &str) -> bool {
    let lists = text.split("! {").skip(1).filter_map(|rest| rest.split('}').next());
    lists.flat_map(|list| list.split(',')).any(|word| word.trim() == name)
}
