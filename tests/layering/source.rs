//! A source file with its comments and strings blanked.

use std::path::Path;

pub struct Source {
    /// The path relative to the project.
    pub path: String,
    /// The code alone, with the line breaks of the original.
    code: String,
}

impl Source {
    /// Reads every file below a folder of the project.
    pub fn below(folder: &str) -> Vec<Source> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut all = Vec::new();
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}")) {
                let path = entry.expect("readable").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).expect("UTF-8");
                    let path = path.strip_prefix(root).expect("below it").to_string_lossy().into_owned();
                    all.push(Source::new(&path, &text));
                }
            }
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }

    pub fn new(path: &str, text: &str) -> Source {
        Source { path: path.into(), code: blank(text) }
    }

    /// Cuts off the tests, which are at the end of a file.
    pub fn without_tests(mut self) -> Source {
        if let Some(at) = self.code.find("#[cfg(test)]\nmod tests") {
            self.code.truncate(at);
        }
        self
    }

    /// Returns whether this is lib.rs or main.rs, which see everything.
    pub fn is_root(&self) -> bool {
        ["src/lib.rs", "src/main.rs"].contains(&self.path.as_str())
    }

    /// Returns the top-level module: `plan` for src/plan/mount.rs and for src/plan.rs.
    pub fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// Returns (line, module) of each `crate::module`, also in groups, and of `super`s that climb to the crate's
    /// root.
    pub fn crate_paths(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, rest) in occurrences(&self.code, "crate::") {
            let line = line_of(&self.code, at);
            found.extend(first_segments(rest).into_iter().map(|segment| (line, segment)));
        }
        // src/plan/mount.rs is two modules deep, mod.rs one less.
        let parts = self.path.split('/').count() - 1;
        let depth = if self.path.ends_with("/mod.rs") { parts - 1 } else { parts };
        for (at, _) in occurrences(&self.code, "super::") {
            let continues = self.code[..at].ends_with("super::");
            let climbs = self.code[at..].split("::").take_while(|word| *word == "super").count();
            if !continues && climbs == depth + inline_modules(&self.code[..at]) {
                let rest = &self.code[at + climbs * "super::".len()..];
                let line = line_of(&self.code, at);
                found.extend(first_segments(rest).into_iter().map(|segment| (line, segment)));
            }
        }
        found
    }

    /// Returns the module path: `a`, `b` for src/a/b.rs, `a` for src/a/mod.rs.
    pub fn module_path(&self) -> Vec<String> {
        let below = self.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        below.split('/').map(str::to_owned).collect()
    }

    /// Returns everything named by way of `crate`, `super` or `self`, as paths from the crate's root.
    pub fn paths(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for start in ["crate::", "super::", "self::"] {
            for (at, mut rest) in occurrences(&self.code, start) {
                let before = &self.code[..at];
                if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                let mut base = self.module_path();
                base.extend((0..inline_modules(before)).map(|_| "{".to_owned()));
                match start {
                    "crate::" => base.clear(),
                    "super::" => drop(base.pop()),
                    _ => {}
                }
                while let Some(above) = rest.strip_prefix("super::") {
                    base.pop();
                    rest = above;
                }
                found.extend(tree(rest).0.into_iter().map(|path| [&base[..], &path].concat()));
            }
        }
        found
    }

    /// Returns what `use` imports from modules within this one.
    pub fn uses(&self) -> Vec<Vec<String>> {
        let uses = occurrences(&self.code, "use ").into_iter();
        uses.flat_map(|(_, rest)| tree(rest.trim_start_matches("self::")).0).collect()
    }

    pub fn lines_with_word(&self, words: &[&str]) -> Vec<String> {
        let has =
            |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| words.contains(&w));
        self.lines_where(has)
    }

    /// Returns lines with a path that begins with `path`.
    pub fn lines_with_path(&self, path: &str) -> Vec<String> {
        self.lines_where(|line| {
            occurrences(line, path).iter().any(|(at, _)| {
                let before = line[..*at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            })
        })
    }

    fn lines_where(&self, has: impl Fn(&str) -> bool) -> Vec<String> {
        let lines = self.code.lines().enumerate().filter(|(_, line)| has(line));
        lines.map(|(i, line)| format!("{}:{}: {}", self.path, i + 1, line.trim())).collect()
    }

    pub fn traits(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (i, line) in self.code.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let Some(at) = words.iter().position(|word| *word == "trait") {
                let name = words.get(at + 1).copied().unwrap_or_default();
                let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
                found.push((i + 1, name[..end].to_owned()));
            }
        }
        found
    }

    /// Counts the lines that are neither empty nor only a comment.
    pub fn code_lines(&self) -> usize {
        self.code.lines().filter(|line| !line.trim().is_empty()).count()
    }
}

/// Finds each occurrence of `what`, with the text that follows it.
fn occurrences<'a>(text: &'a str, what: &str) -> Vec<(usize, &'a str)> {
    text.match_indices(what).map(|(at, found)| (at, &text[at + found.len()..])).collect()
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Counts the `mod name {` that are open at the end of the text.
fn inline_modules(text: &str) -> usize {
    let mut open = Vec::new();
    let mut before = "";
    let mut last = "";
    for word in text.split_inclusive(|c: char| c.is_whitespace() || "{}".contains(c)) {
        for c in word.chars().filter(|c| "{}".contains(*c)) {
            let name = word.trim_end_matches('{').trim();
            match c {
                '{' => open.push(last == "mod" && !name.is_empty() || before == "mod" && name.is_empty()),
                _ => drop(open.pop()),
            }
        }
        if !word.trim().is_empty() {
            (before, last) = (last, word.trim());
        }
    }
    open.into_iter().filter(|module| *module).count()
}

/// Returns the first segments: `a` of `a::b`; `a` and `c` of `{a::b, c}`.
fn first_segments(rest: &str) -> Vec<String> {
    let identifier = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        text[..end].to_owned()
    };
    let Some(group) = rest.strip_prefix('{') else { return vec![identifier(rest)] };
    let (mut depth, mut segments, mut start) = (0, Vec::new(), 0);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                segments.push(identifier(&group[start..i]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                segments.push(identifier(&group[start..i]));
                start = i + 1;
            }
            _ => {}
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

/// Parses the paths of a `use` that begins here: `{a::b, c::*}` is `a::b` and `c::*`. Also returns the text that
/// follows.
fn tree(text: &str) -> (Vec<Vec<String>>, &str) {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        let mut paths = Vec::new();
        while !rest.is_empty() && !rest.starts_with('}') {
            let (more, after) = tree(rest);
            paths.extend(more);
            // Skip `as name`.
            rest = after.trim_start_matches(|c| c != ',' && c != '}').trim_start_matches(',').trim_start();
        }
        return (paths, rest.strip_prefix('}').unwrap_or_default());
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let (below, rest) = match rest.strip_prefix("::") {
        Some(below) if !name.is_empty() => tree(below),
        _ => (vec![Vec::new()], rest),
    };
    let name = (!name.is_empty()).then(|| name.to_owned());
    (below.into_iter().map(|path| name.iter().cloned().chain(path).collect()).collect(), rest)
}

/// Replaces comments, strings and character literals with blanks, keeping line breaks.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match (chars[i], chars.get(i + 1)) {
            ('/', Some('/')) => until(&chars, i, |c| c == '\n'),
            ('/', Some('*')) => block_comment(&chars, i),
            ('"', _) => string(&chars, i),
            ('r', Some('"' | '#')) if !word_before(&chars, i) => raw_string(&chars, i),
            ('\'', _) => character(&chars, i),
            _ => i,
        };
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

fn until(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|i| stop(chars[*i])).unwrap_or(chars.len())
}

fn word_before(chars: &[char], i: usize) -> bool {
    i > 0 && (chars[i - 1].is_alphanumeric() && !matches!(chars[i - 1], 'b' | 'c') || chars[i - 1] == '_')
}

fn block_comment(chars: &[char], from: usize) -> usize {
    let (mut depth, mut i) = (0, from);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn string(chars: &[char], from: usize) -> usize {
    let mut i = from + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn raw_string(chars: &[char], from: usize) -> usize {
    let quote = until(chars, from + 1, |c| c != '#');
    if chars.get(quote) != Some(&'"') {
        // A raw identifier.
        return from;
    }
    let hashes = quote - from - 1;
    let closes = |i: &usize| chars[*i] == '"' && (1..=hashes).all(|n| chars.get(i + n) == Some(&'#'));
    (quote + 1..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes)
}

/// Returns the end of a character literal; a lifetime is not one.
fn character(chars: &[char], from: usize) -> usize {
    match (chars.get(from + 1), chars.get(from + 2)) {
        (Some('\\'), _) => (until(chars, from + 3, |c| c == '\'') + 1).min(chars.len()),
        (Some(_), Some('\'')) => from + 3,
        _ => from,
    }
}

#[test]
fn only_code_is_left() {
    let text = "use crate::a; // crate::b\n/* crate::c /* x */ */ let x = \"crate::d \\\" crate::e\"; 'l: r#\"crate::\"f\"#; '\"'; crate::{g::h, i}";
    let source = Source { path: "src/x/y.rs".into(), code: blank(text) };
    let found: Vec<String> =
        source.crate_paths().into_iter().map(|(line, m)| format!("{line} {m}")).collect();
    assert_eq!(found, ["1 a", "2 g", "2 i"]);
}

#[test]
fn supers_to_the_root_are_seen() {
    let source = |path: &str, text: &str| Source { path: path.into(), code: blank(text) }.crate_paths();
    assert_eq!(source("src/x/y.rs", "use super::super::z::w;"), [(1, "z".into())]);
    assert_eq!(source("src/x/mod.rs", "use super::z;"), [(1, "z".into())]);
    assert_eq!(source("src/x/y.rs", "use super::z;"), []);
    assert_eq!(source("src/x.rs", "fn f() {} mod tests { use super::*; }"), []);
    assert_eq!(
        source("src/x.rs", "mod a { fn f() { super::super::z::g() } } use super::w;"),
        [(1, "z".into()), (1, "w".into())]
    );
}
