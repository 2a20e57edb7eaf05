//! Which module of the library uses which: layers, and no circles.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::Item;

use crate::{files, module};

/// A module may use those of its own layer and of lower ones. A folder's files are in its layer, unless they are named
/// here themselves.
const LAYERS: [&[&str]; 6] = [
    &[
        "admin::rows",
        "count",
        "cron",
        "error",
        "guide",
        "health",
        "headers",
        "key",
        "lifecycle",
        "message",
        "ok",
        "payload",
        "queue",
        "report",
        "retry",
        "sent",
        "signal",
        "telemetry",
        "times",
        "timing",
        "token",
        "trace_context",
        "watermark",
    ],
    &["postgres"],
    &["pool", "send", "firing"],
    &["store", "connect", "executor", "transaction"],
    &[
        "worker",
        "enqueue",
        "statement",
        "test_statement",
        "import",
        "dequeue",
        "delivery",
        "schedule",
        "scheduler",
    ],
    &[
        "producer", "consumer", "consume", "run", "handler", "around", "chunk", "admin", "observe",
        "testing",
    ],
];

/// These name each other: an error names a queue and a message, whose constructors return errors; a message has options,
/// which apply to it.
const VOCABULARY: [&str; 4] = ["error", "message", "message::options", "queue"];

fn layer(module: &str) -> usize {
    let mut name = module;
    loop {
        let found = LAYERS.iter().position(|modules| modules.contains(&name));
        match (found, name.rsplit_once("::")) {
            (Some(layer), _) => return layer,
            (None, Some((parent, _))) => name = parent,
            (None, None) => {
                panic!("module `{module}` has no layer: give it one, here and in ARCHITECTURE.md")
            }
        }
    }
}

/// The paths in code of this module that begin with `crate`, `super`, `self` or a module inside of this one, resolved.
fn paths(items: &[Item], scope: &[String], modules: &BTreeSet<String>) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for item in items {
        match item {
            Item::Mod(inner) => {
                let mut scope = scope.to_vec();
                scope.push(inner.ident.to_string());
                let items = inner.content.iter().flat_map(|(_, items)| items.clone());
                found.extend(paths(&items.collect::<Vec<_>>(), &scope, modules));
            }
            // What a macro names for users is public, and stands in `lib.rs`.
            Item::Macro(item) if is_exported(&item.attrs) => {}
            item => search(item.to_token_stream(), scope, modules, &mut found),
        }
    }
    found
}

fn is_exported(attributes: &[syn::Attribute]) -> bool {
    let mut paths = attributes.iter().map(syn::Attribute::path);
    paths.any(|path| path.is_ident("macro_export"))
}

fn search(
    code: TokenStream,
    scope: &[String],
    modules: &BTreeSet<String>,
    found: &mut Vec<Vec<String>>,
) {
    let tokens: Vec<_> = code.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => {
                let inside = group.stream();
                // A visibility, as in `pub(in crate::send)`, uses nothing.
                let first = inside.clone().into_iter().next();
                if !matches!(first, Some(TokenTree::Ident(word)) if word == "in") {
                    search(inside, scope, modules, found);
                }
            }
            TokenTree::Ident(name) if is_separator(&tokens, at + 1) => {
                let name = name.to_string();
                let start = match name.as_str() {
                    "crate" => Some(Vec::new()),
                    "self" => Some(scope.to_vec()),
                    "super" => Some(parent(scope)),
                    _ => {
                        let mut path = scope.to_vec();
                        path.push(name);
                        modules.contains(&path.join("::")).then_some(path)
                    }
                };
                match start {
                    Some(start) => {
                        at = tree(&tokens, at + 3, start, found);
                        continue;
                    }
                    // The rest of another crate's path, such as `std::mem`.
                    None => {
                        while at + 3 < tokens.len() && is_separator(&tokens, at + 1) {
                            at += 3;
                        }
                        continue_at_group(&tokens, &mut at);
                        continue;
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// Steps over one token, unless it is a group, which may hold code.
fn continue_at_group(tokens: &[TokenTree], at: &mut usize) {
    if !matches!(tokens.get(*at), Some(TokenTree::Group(_))) {
        *at += 1;
    }
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    is_colon(at) && is_colon(at + 1)
}

fn parent(scope: &[String]) -> Vec<String> {
    scope.split_last().map_or(Vec::new(), |(_, up)| up.to_vec())
}

/// Reads the rest of a path, which may branch; returns the position behind it.
fn tree(
    tokens: &[TokenTree],
    mut at: usize,
    mut path: Vec<String>,
    found: &mut Vec<Vec<String>>,
) -> usize {
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(name)) => {
                match name.to_string().as_str() {
                    "super" => path = parent(&path),
                    "self" => {}
                    name => path.push(name.to_owned()),
                }
                at += 1;
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let branches: Vec<_> = group.stream().into_iter().collect();
                let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
                for branch in branches.split(is_comma).filter(|branch| !branch.is_empty()) {
                    tree(branch, 0, path.clone(), found);
                }
                return at + 1;
            }
            // `*`, or the type parameters of a function.
            _ => break,
        }
        if !is_separator(tokens, at) {
            break;
        }
        at += 2;
    }
    found.push(path);
    at
}

/// The module that a path leads into: the longest beginning of it that is one.
fn target(path: &[String], modules: &BTreeSet<String>) -> Option<String> {
    (1..=path.len())
        .rev()
        .map(|length| path[..length].join("::"))
        .find(|name| modules.contains(name))
}

/// Each module of the library, with those that it uses.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut sources = BTreeMap::new();
    for (path, text) in files("src", "rs") {
        sources.insert(module(&path), syn::parse_file(&text).expect("it is Rust"));
    }
    sources.remove("lib");
    let modules: BTreeSet<String> = sources.keys().cloned().collect();
    let mut imports = BTreeMap::new();
    for (name, file) in &sources {
        let scope: Vec<_> = name.split("::").map(str::to_owned).collect();
        let mut used = BTreeSet::new();
        for path in paths(&file.items, &scope, &modules) {
            match target(&path, &modules) {
                Some(module) => used.extend((module != *name).then_some(module)),
                None => panic!(
                    "{name} uses `crate::{}`: name the module that it is in, not its re-export",
                    path.join("::")
                ),
            }
        }
        imports.insert(name.clone(), used);
    }
    imports
}

/// A circle of imports, if there is one.
fn circle(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        imports: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        let last = way.last().expect("it has a start").clone();
        for next in imports.get(&last).into_iter().flatten() {
            if let Some(start) = way.iter().position(|name| name == next) {
                way.drain(..start);
                return true;
            }
            if !done.contains(next) {
                way.push(next.clone());
                if visit(imports, way, done) {
                    return true;
                }
                way.pop();
            }
        }
        done.insert(last);
        false
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|start| {
        let mut way = vec![start.clone()];
        visit(imports, &mut way, &mut done).then_some(way)
    })
}

#[test]
fn paths_are_read_like_the_compiler_reads_them() {
    let code = "
        use crate::{a::{b, c::{self, D}}, e::F};
        use super::g as h;
        use std::{a, sync::Arc};
        use inside::I;
        fn f() -> crate::j::K { crate::l::<u8>(super::super::m); std::mem::take(crate::n) }
        mod tests { use super::*; }
    ";
    let file = syn::parse_file(code).expect("it is Rust");
    let scope = ["x", "y"].map(str::to_owned);
    let modules = BTreeSet::from(["x::y::inside".to_owned()]);
    let found: Vec<_> = paths(&file.items, &scope, &modules)
        .iter()
        .map(|path| path.join("::"))
        .collect();
    let expected = [
        "a::b",
        "a::c",
        "a::c::D",
        "e::F",
        "x::g",
        "x::y::inside::I",
        "j::K",
        "l",
        "m",
        "n",
        "x::y",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_lower_layer_never_uses_a_higher_one() {
    for (module, used) in imports() {
        for used in used {
            assert!(
                layer(&used) <= layer(&module),
                "`{module}` is below `{used}` and must not use it"
            );
        }
    }
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = BTreeMap::<String, BTreeSet<String>>::new();
        for (from, to) in edges {
            let used = graph.entry((*from).to_owned()).or_default();
            used.insert((*to).to_owned());
        }
        graph
    };
    assert_eq!(circle(&graph(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
    let found = circle(&graph(&[("a", "b"), ("b", "c"), ("c", "b")]));
    assert_eq!(found, Some(vec!["b".to_owned(), "c".to_owned()]));

    let mut imports = imports();
    for name in VOCABULARY {
        let used = imports.get_mut(name).expect("it is there");
        used.retain(|used| !VOCABULARY.contains(&used.as_str()));
    }
    if let Some(circle) = circle(&imports) {
        panic!(
            "these import each other in a circle: {}",
            circle.join(" > ")
        );
    }
    assert!(imports.len() > 40, "only {} modules", imports.len());
}
