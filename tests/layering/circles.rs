//! Import cycles between the files of a folder: none of these files can be read before the others.
//!
//! A folder within the folder counts as one file. mod.rs does not count: it is the folder, and an item that it
//! re-exports belongs to the file that defines it.

use crate::source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// Which file imports which, by their modules' paths.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn imports(sources: &[Source]) -> Imports {
    let modules: BTreeSet<Vec<String>> = sources.iter().map(Source::module_path).collect();
    // What a mod.rs re-exports from the files beside it, by the path under which it can be named.
    let mut exports = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path.ends_with("/mod.rs")) {
        let folder = source.module_path();
        for path in source.uses() {
            let [first, .., name] = &path[..] else { continue };
            let file = [&folder[..], std::slice::from_ref(first)].concat();
            if modules.contains(&file) {
                exports.insert([&folder[..], std::slice::from_ref(name)].concat(), file);
            }
        }
    }
    let mut imports = Imports::new();
    for source in sources {
        let own = source.module_path();
        for path in source.paths() {
            let shared = own.iter().zip(&path).take_while(|(a, b)| a == b).count();
            // Between top-level modules, the ranks decide.
            if shared == 0 || shared == own.len() || shared == path.len() {
                continue;
            }
            let named = &path[..=shared];
            let file = exports.get(named).map_or(named, Vec::as_slice);
            if modules.contains(file) && *file != own[..=shared] {
                let [from, to] = [&own[..=shared], file].map(|path| path.join("::"));
                imports.entry(from).or_default().insert(to);
            }
        }
    }
    imports
}

/// Returns the files that import themselves by way of others, each with its direct imports in the cycle.
fn in_circles(imports: &Imports) -> BTreeMap<&str, Vec<&str>> {
    let reached = |from: &str| {
        let mut reached = BTreeSet::new();
        let mut next = vec![from];
        while let Some(file) = next.pop() {
            let new = imports.get(file).into_iter().flatten().map(String::as_str);
            next.extend(new.filter(|file| reached.insert(*file)).collect::<Vec<_>>());
        }
        reached
    };
    let mut found = BTreeMap::new();
    for (file, beside) in imports {
        let back = |other: &&str| reached(other).contains(file.as_str());
        let circle: Vec<&str> = beside.iter().map(String::as_str).filter(back).collect();
        if !circle.is_empty() {
            found.insert(file.as_str(), circle);
        }
    }
    found
}

#[test]
fn the_files_of_a_folder_import_each_other_in_one_direction() {
    let sources = Source::below("src").into_iter().filter(|s| !s.is_root() && !s.path.contains("/tests"));
    let sources: Vec<Source> = sources.map(Source::without_tests).collect();
    let imports = imports(&sources);
    assert!(imports.len() > 50, "only {} files import others", imports.len());
    let found = in_circles(&imports).into_iter();
    let found = found.map(|(file, others)| format!("{file} imports {}", others.join(", ")));
    crate::assert_none("circles", found.collect());
}

#[test]
fn a_circle_is_found_by_way_of_what_a_folder_exports() {
    let source = |path: &str, text: &str| Source::new(path, text);
    let sources = [
        source("src/x/mod.rs", "mod a; mod b; pub mod c; pub use b::{B, inner::Other}; use self::c::C;"),
        source("src/x/a.rs", "use super::{Mine, d::D}; fn f() { super::B::new() }"),
        source("src/x/b.rs", "fn f() -> crate::x::C { mod tests { use super::super::a::A; } }"),
        source("src/x/c/mod.rs", "use crate::{x::{a::A as Alias}, y}; mod deep;"),
        source("src/x/c/deep.rs", "use super::super::d::D; use super::C; use crate::y::Y;"),
        source("src/x/d.rs", ""),
        source("src/y.rs", "use crate::x::a::A;"),
    ];
    let imports = imports(&sources);
    let of = |file: &str| imports[file].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("x::a"), ["x::b", "x::d"]);
    assert_eq!(of("x::b"), ["x::a", "x::c"]);
    assert_eq!(of("x::c"), ["x::a", "x::d"]);
    assert_eq!(imports.len(), 3, "{imports:?}");
    assert_eq!(in_circles(&imports).into_keys().collect::<Vec<_>>(), ["x::a", "x::b", "x::c"]);
}
