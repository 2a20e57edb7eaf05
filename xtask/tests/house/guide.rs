//! The guide: its links work in rustdoc too, each page is in it, and between them the pages name all that is public.

use std::{collections::BTreeSet, fs};

use crate::{all_files, files, root};

/// The links that a page defines at its end, by name.
fn defined(page: &str) -> BTreeSet<String> {
    let definitions = page.lines().filter_map(|line| line.split_once("]: "));
    let names = definitions.filter_map(|(name, _)| name.strip_prefix('['));
    names.map(str::to_owned).collect()
}

/// A page in a repository links to files, which aren't in rustdoc: so `src/guide.rs` defines each link a second time, before
/// the page, and the first definition counts.
#[test]
fn each_page_of_the_guide_is_in_rustdoc_and_its_links_work_there() {
    let guide = fs::read_to_string(root().join("src/guide.rs")).expect("it is there");
    let modules: Vec<_> = guide.split("pub mod ").collect();
    let pages = files("docs/guide", "md");
    for (path, text) in &pages {
        let path = path.display().to_string();
        let include = format!("include_str!(\"../{path}\")");
        let module = modules.iter().find(|module| module.contains(&include));
        let module = module.unwrap_or_else(|| panic!("{path} is in no module of src/guide.rs"));
        for name in defined(text) {
            assert!(
                module.contains(&format!("/// [{name}]: ")),
                "src/guide.rs doesn't say where [{name}] of {path} leads to in rustdoc"
            );
        }
        let inline = text.split("](").skip(1);
        let inline = inline.filter_map(|rest| rest.split_once(')'));
        for (target, _) in inline {
            assert!(
                target.starts_with("http") || target.starts_with('#'),
                "{path}: name the link to {target}, and define it at the end"
            );
        }
    }
    assert!(pages.len() > 10, "only {} pages", pages.len());
}

/// The names that `src/lib.rs` and `src/testing.rs` export.
fn exported() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in ["src/lib.rs", "src/testing.rs"] {
        let text = fs::read_to_string(root().join(file)).expect("it is there");
        for item in syn::parse_file(&text).expect("it is Rust").items {
            let syn::Item::Use(item) = item else { continue };
            let is_hidden = item
                .attrs
                .iter()
                .any(|attribute| quote::quote!(#attribute).to_string().contains("hidden"));
            if matches!(item.vis, syn::Visibility::Public(_)) && !is_hidden {
                leaves(&item.tree, &mut names);
            }
        }
    }
    names
}

fn leaves(tree: &syn::UseTree, names: &mut BTreeSet<String>) {
    match tree {
        syn::UseTree::Path(path) => leaves(&path.tree, names),
        syn::UseTree::Group(group) => group.items.iter().for_each(|item| leaves(item, names)),
        syn::UseTree::Name(name) => {
            names.insert(name.ident.to_string());
        }
        syn::UseTree::Rename(_) | syn::UseTree::Glob(_) => {}
    }
}

#[test]
fn a_page_or_an_example_names_each_public_item() {
    let mut words = BTreeSet::new();
    let examples = files("examples", "rs").into_iter();
    let pages = all_files("md").into_iter().filter(|(path, _)| {
        // These are for developers, or made of the compiler's messages.
        let path = path.display().to_string();
        path == "README.md"
            || path.starts_with("docs/")
                && !path.contains("decisions")
                && !path.contains("compile-errors")
    });
    for (_, text) in examples.chain(pages) {
        let is_end = |letter: char| !(letter.is_alphanumeric() || letter == '_');
        words.extend(text.split(is_end).map(str::to_owned));
    }
    let exported = exported();
    assert!(exported.len() > 100, "only {} names", exported.len());
    let missing: Vec<_> = exported.difference(&words).cloned().collect();
    assert!(
        missing.is_empty(),
        "no page and no example names {}; docs/guide/names.md is for those that are seldom written",
        missing.join(", ")
    );
}
