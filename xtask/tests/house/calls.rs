//! How many calls of ours, in how many files, are on the way of a message to its statement. ARCHITECTURE.md draws it.

use std::{collections::BTreeSet, fs};

use quote::ToTokens;
use syn::{ImplItem, Item};

use crate::root;

/// A way: the file of each function, and its name. Each calls the next one, and the last one is the statement.
type Way = &'static [(&'static str, &'static str)];

const IN_A_TRANSACTION: Way = &[
    ("src/enqueue.rs", "execute"),
    ("src/enqueue.rs", "send"),
    ("src/postgres/insert.rs", "insert"),
    ("src/postgres/insert.rs", "insert_chunk"),
];

const ON_A_STORE: Way = &[
    ("src/enqueue.rs", "execute"),
    ("src/enqueue.rs", "send"),
    ("src/send/mod.rs", "send"),
    ("src/send/writer/deliver.rs", "deliver"),
    ("src/send/writer/deliver.rs", "attempt"),
    ("src/postgres/writers.rs", "write_alike"),
];

/// The code of a function, of a module or of a type.
fn body(file: &str, function: &str) -> String {
    let text = fs::read_to_string(root().join(file)).expect("it is there");
    let items = syn::parse_file(&text).expect("it is Rust").items;
    let mut found = items.iter().flat_map(|item| match item {
        Item::Fn(item) if item.sig.ident == function => vec![item.block.to_token_stream()],
        Item::Impl(item) => item
            .items
            .iter()
            .filter_map(|item| match item {
                ImplItem::Fn(method) if method.sig.ident == function => {
                    Some(method.block.to_token_stream())
                }
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    });
    let body = found.next().expect("the function is there");
    assert!(found.next().is_none(), "{file} has two `{function}`");
    body.to_string()
}

fn check(way: Way, calls: usize, in_files: usize) {
    for pair in way.windows(2) {
        let [(file, caller), (_, called)] = pair else {
            unreachable!("windows of two");
        };
        let code = body(file, caller);
        assert!(
            code.contains(&format!("{called} (")),
            "`{caller}` in {file} doesn't call `{called}`"
        );
    }
    let (file, last) = way.last().expect("it has an end");
    assert!(body(file, last).contains("sqlx :: query"), "{last}");
    let files: BTreeSet<_> = way.iter().map(|(file, _)| file).collect();
    assert!(way.len() <= calls, "{} calls", way.len());
    assert!(files.len() <= in_files, "{} files", files.len());
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("it is there");
    let (_, drawn) = page.split_once("## The two ways").expect("it is drawn");
    for (_, function) in way {
        assert!(drawn.contains(function), "ARCHITECTURE.md: `{function}`");
    }
}

#[test]
fn in_a_transaction_a_message_takes_four_calls_in_two_files() {
    check(IN_A_TRANSACTION, 4, 2);
}

#[test]
fn on_a_store_a_message_takes_six_calls_in_four_files() {
    check(ON_A_STORE, 6, 4);
}
