//! The library's source: which items it exports, and where they are defined.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use syn::{Attribute, File, Item, UseTree, Visibility};

use super::{
    root,
    text::{implementation, methods, shown, subject, tidy},
};

/// The library's source, by module: `postgres::queues` for src/postgres/queues.rs.
pub(super) struct Crate {
    modules: BTreeMap<String, File>,
}

/// An item as users name it, and where it is defined.
struct Exported {
    path: String,
    module: String,
    name: String,
}

impl Crate {
    pub(super) fn read() -> Self {
        let source = root().join("src");
        let (mut modules, mut folders) = (BTreeMap::new(), vec![source.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("it is there") {
                let path = entry.expect("it can be read").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                if path.file_stem().is_some_and(|name| name == "tests") {
                    continue; // Unit tests, in a file of their own.
                }
                let text = fs::read_to_string(&path).expect("it is text");
                let module = path
                    .strip_prefix(&source)
                    .expect("below")
                    .with_extension("");
                let module = module.to_string_lossy().replace('/', "::");
                let module = module.strip_suffix("::mod").unwrap_or(&module).to_owned();
                modules.insert(module, syn::parse_file(&text).expect("it is Rust"));
            }
        }
        Self { modules }
    }

    pub(super) fn find(&self, module: &str, name: &str) -> &Item {
        self.search(module, name)
            .unwrap_or_else(|| panic!("no `{name}` in `{module}`"))
    }

    fn search(&self, module: &str, name: &str) -> Option<&Item> {
        let file = self
            .modules
            .get(module)
            .unwrap_or_else(|| panic!("no module `{module}`"));
        file.items
            .iter()
            .find(|item| name_of(item).is_some_and(|found| found == name))
    }

    /// The type whose builder typed-builder writes: its setters are listed there.
    fn built_by(&self, module: &str, name: &str) -> Option<String> {
        let of = name.strip_suffix("Builder")?;
        let is_written_here = self.search(module, name).is_some();
        (!is_written_here).then(|| of.to_owned())
    }

    /// What `lib.rs` re-exports; nothing else is public.
    fn exported(&self) -> Vec<Exported> {
        let mut exported = Vec::new();
        let mut items: Vec<(&str, &Item)> = self.modules["lib"]
            .items
            .iter()
            .map(|item| ("pgqrs", item))
            .collect();
        while let Some((prefix, item)) = items.pop() {
            match item {
                Item::Use(used) if is_public(&used.vis) => {
                    walk(&used.tree, &mut Vec::new(), &mut |path| {
                        let (name, module) = path.split_last().expect("a path");
                        if module.is_empty() || self.is_macro(name) {
                            return; // A crate, see `crates`; or a macro.
                        }
                        let inside = match module[0].as_str() {
                            // As in `src/testing.rs`, which is at the same place in the paths of users.
                            "self" => prefix.strip_prefix("pgqrs::").map(str::to_owned),
                            _ => None,
                        };
                        let module = inside.into_iter().chain(module[1..].to_vec());
                        exported.push(Exported {
                            path: format!("{prefix}::{name}"),
                            module: module.collect::<Vec<_>>().join("::"),
                            name: name.clone(),
                        });
                    });
                }
                // Pages, and no items.
                Item::Mod(module) if module.ident == "guide" => {}
                // A file like `lib.rs`.
                Item::Mod(module) if module.ident == "testing" => {
                    let inside = self.modules["testing"].items.iter();
                    let uses = inside
                        .filter(|item| matches!(item, Item::Use(used) if !is_hidden(&used.attrs)));
                    items.extend(uses.map(|item| ("pgqrs::testing", item)));
                }
                Item::Mod(module) if is_public(&module.vis) => {
                    assert_eq!(module.ident, "state", "list this module, too");
                    let (_, inside) = module.content.as_ref().expect("it stands in lib.rs");
                    items.extend(inside.iter().map(|item| ("pgqrs::state", item)));
                }
                // A private module.
                Item::Mod(module) => assert!(module.content.is_none(), "lib.rs holds no code"),
                other => panic!("lib.rs holds only modules and `pub use`: {}", tidy(other)),
            }
        }
        exported.sort_by(|one, other| one.path.cmp(&other.path));
        exported
    }

    fn is_macro(&self, name: &str) -> bool {
        let is_it = |item: &syn::ItemMacro| item.ident.as_ref().is_some_and(|of| of == name);
        self.all_items()
            .any(|item| matches!(item, Item::Macro(item) if is_it(item)))
    }

    /// The crates that `lib.rs` re-exports whole.
    fn crates(&self) -> Vec<String> {
        let uses = self.modules["lib"].items.iter();
        uses.filter_map(|item| match item {
            Item::Use(used) if is_public(&used.vis) => match &used.tree {
                UseTree::Name(name) => Some(name.ident.to_string()),
                _ => None,
            },
            _ => None,
        })
        .collect()
    }

    pub(super) fn surface(&self) -> String {
        let exported = self.exported();
        let names: BTreeSet<&str> = exported.iter().map(|item| item.name.as_str()).collect();
        // A trait of ours without a public path seals others.
        let private: BTreeSet<String> = self
            .all_items()
            .filter_map(|item| match item {
                Item::Trait(item) if !names.contains(item.ident.to_string().as_str()) => {
                    Some(item.ident.to_string())
                }
                _ => None,
            })
            .collect();

        let mut text = "# What users of pgqrs can name, and call. Made by `ACCEPT=1 cargo xtask test surface`.\n".to_owned();
        text += &format!("\ncrates: {}\n", self.crates().join(", "));
        for Exported { path, module, name } in &exported {
            if let Some(of) = self.built_by(module, name) {
                text += &format!("\nstruct {path}: see `builder()` of `{of}`\n");
                continue;
            }
            let (heading, mut lines) = shown(self.find(module, name), path);
            let mut others = Vec::new();
            for item in self.all_items() {
                let Item::Impl(item) = item else { continue };
                match &item.trait_ {
                    None if subject(&item.self_ty) == *name => lines.extend(methods(item)),
                    Some((_, of, _)) => {
                        let of = of.segments.last().expect("a name").ident.to_string();
                        if private.contains(&of) {
                            continue;
                        }
                        // An implementation is listed once: of our own traits, at the trait.
                        let subject = subject(&item.self_ty);
                        let listed_here = if names.contains(of.as_str()) {
                            of == *name
                        } else if names.contains(subject.as_str()) {
                            subject == *name
                        } else {
                            // `From<MessageId> for i64`.
                            item.trait_
                                .as_ref()
                                .is_some_and(|(_, of, _)| tidy(of).contains(&format!("<{name}>")))
                        };
                        if listed_here {
                            others.extend(implementation(item));
                        }
                    }
                    _ => {}
                }
            }
            others.sort();
            lines.extend(others);
            text += &format!("\n{heading}\n");
            for line in lines {
                text += &format!("    {line}\n");
            }
        }
        text += "\nImplementations that a macro writes:\n";
        for item in self.all_items() {
            if let Item::Macro(item) = item
                && item.ident.is_none()
                && !item.mac.path.is_ident("thread_local")
            {
                for line in tidy(&item.mac.tokens).split("; ") {
                    text += &format!(
                        "    {}! {}\n",
                        tidy(&item.mac.path),
                        line.trim_end_matches(';')
                    );
                }
            }
        }
        text
    }

    fn all_items(&self) -> impl Iterator<Item = &Item> {
        // A module inside a file, such as `sealed`, holds traits that others can't name.
        self.modules
            .values()
            .flat_map(|file| &file.items)
            .flat_map(|item| match item {
                Item::Mod(module) if !is_test(&module.attrs) => {
                    let inside = module.content.iter().flat_map(|(_, items)| items);
                    std::iter::once(item).chain(inside).collect::<Vec<_>>()
                }
                item => vec![item],
            })
    }
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

fn walk(tree: &UseTree, path: &mut Vec<String>, found: &mut impl FnMut(&[String])) {
    match tree {
        UseTree::Path(part) => {
            path.push(part.ident.to_string());
            walk(&part.tree, path, found);
            path.pop();
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                walk(tree, path, found);
            }
        }
        UseTree::Name(name) => {
            path.push(name.ident.to_string());
            found(path);
            path.pop();
        }
        UseTree::Rename(_) | UseTree::Glob(_) => panic!("lib.rs re-exports each item by its name"),
    }
}

pub(super) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    let mut shown = attributes.iter().map(tidy);
    shown.any(|attribute| attribute.contains("hidden"))
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("cfg"))
}
