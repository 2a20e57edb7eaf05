//! The guide: its links work in rustdoc too, each page is in it, and between them the pages name all that is public.

use std::{collections::BTreeSet, fs};

use crate::{all_files, files, root};

/// The links to files that a page defines at its end, by name.
fn defined(page: &str) -> BTreeSet<String> {
    let definitions = page.lines().filter_map(|line| line.split_once("]: "));
    let to_files = definitions.filter(|(_, target)| !target.contains("://"));
    let names = to_files.filter_map(|(name, _)| name.strip_prefix('['));
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

#[test]
fn the_readme_and_the_guides_first_page_lead_to_each_page() {
    let readme = fs::read_to_string(root().join("README.md")).expect("it is there");
    let guide = fs::read_to_string(root().join("src/guide.rs")).expect("it is there");
    let first: Vec<_> = guide
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .collect();
    let first = first.join("\n");
    for (path, _) in files("docs/guide", "md") {
        let page = path.display().to_string();
        assert!(
            readme.contains(&format!("]: {page}\n")),
            "README.md doesn't lead to {page}"
        );
        let module = path.file_stem().expect("a page has a name");
        let module = module.to_string_lossy().replace('-', "_");
        let links = [format!("]({module})"), format!("/pgqrs/guide/{module}/)")];
        assert!(
            links.iter().any(|link| first.contains(link)),
            "the first page of src/guide.rs doesn't lead to {module}"
        );
    }
}

/// rustdoc doesn't draw Mermaid, so what a page has of it is also drawn, in a file beside the page.
#[test]
fn each_drawing_in_rustdoc_is_of_its_page_as_it_is() {
    let guide = fs::read_to_string(root().join("src/guide.rs")).expect("it is there");
    let mut drawings = 0;
    for (path, page) in files("docs/guide", "md") {
        let blocks = page.split("```mermaid\n").skip(1);
        let sources = blocks.filter_map(|block| block.split("\n```").next());
        let sources: Vec<_> = sources.collect();
        let drawn = path.with_extension("html");
        let html = fs::read_to_string(root().join(&drawn)).unwrap_or_default();
        let of = html.split("<template data-source=\"").skip(1);
        let of = of.filter_map(|template| template.split_once("\">\n<svg "));
        let of: Vec<_> = of.map(|(source, _)| text_of_attribute(source)).collect();
        assert_eq!(
            of,
            sources,
            "{} isn't drawn as it is: `cargo xtask drawings`",
            path.display()
        );
        if !sources.is_empty() {
            let drawn = drawn.display();
            assert!(
                guide.contains(&format!("include_str!(\"../{drawn}\")")),
                "src/guide.rs doesn't include {drawn}"
            );
        }
        drawings += sources.len();
    }
    assert!(drawings > 0, "no drawings");
}

fn text_of_attribute(attribute: &str) -> String {
    attribute
        .replace("&#10;", "\n")
        .replace("&quot;", "\"")
        .replace("&gt;", ">")
        .replace("&lt;", "<")
        .replace("&amp;", "&")
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
        // These are for developers, made of the compiler's messages, or about Python.
        let path = path.display().to_string();
        path == "README.md"
            || path.starts_with("docs/")
                && !path.contains("decisions")
                && !path.contains("compile-errors")
                && !path.contains("python")
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
