//! What the crate shows to its users, as a list that is checked in, so that a change is visible to its author and
//! to reviewers. And which errors can happen at run time, each with the reason why the types can't
//! rule it out.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use quote::ToTokens;
use syn::{
    Attribute, Fields, File, FnArg, Generics, ImplItem, Item, ItemImpl, Signature, TraitItem, Type,
    UseTree, Visibility, WhereClause,
};

#[test]
fn the_public_surface_is_the_one_that_was_reviewed() {
    let surface = Crate::read().surface();
    let file = root().join("docs/public-api.txt");
    if env::var_os("ACCEPT").is_some() {
        fs::write(&file, &surface).expect("written");
        return;
    }
    let reviewed = fs::read_to_string(&file).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (before, now) = (lines(&reviewed), lines(&surface));
    let changes: Vec<String> = before
        .difference(&now)
        .map(|line| format!("- {}", line.trim()))
        .chain(
            now.difference(&before)
                .map(|line| format!("+ {}", line.trim())),
        )
        .collect();
    assert!(
        reviewed == surface,
        "the public surface has changed:\n{}\n\nTo accept it: `ACCEPT=1 cargo xtask test surface`, and say what \
         users notice in CHANGELOG.md",
        changes.join("\n")
    );
}

/// Each variant of `Error`, and why no type can rule it out. What a type can rule out has no variant here:
/// an enqueue without a message or a target, a second one of either, the wrong payload for a queue, a
/// delivery settled twice, a negative delay, a priority that doesn't exist. Those are under `tests/ui`.
const UNAVOIDABLE: [(&str, &str); 31] = [
    (
        "NotInstalled",
        "the schema is in the database, which others change",
    ),
    (
        "SchemaOutdated",
        "the schema is in the database, which others change",
    ),
    (
        "SchemaNewer",
        "the schema is in the database, which others change",
    ),
    ("Migrate", "the server refuses, for reasons of its own"),
    (
        "PermissionDenied",
        "privileges are in the database, which others grant and revoke",
    ),
    (
        "QueueNotFound",
        "queues are in the database, which others change",
    ),
    (
        "QueueExists",
        "queues are in the database, which others change",
    ),
    (
        "QueueNotEmpty",
        "messages are in the database, which others change",
    ),
    (
        "WorkerExists",
        "workers are in the database, and other processes register theirs",
    ),
    (
        "WorkerNotFound",
        "workers are in the database, and other processes remove them",
    ),
    (
        "WorkerSuspended",
        "an operator suspends it from another process",
    ),
    ("WorkerStopped", "an operator stops it from another process"),
    (
        "InvalidTransition",
        "an operator moves it from another process",
    ),
    (
        "InvalidHostname",
        "a host's name is read from the environment, so it is not a constant",
    ),
    (
        "InvalidSetting",
        "settings are read from configuration, and their types are PostgreSQL's and the standard library's",
    ),
    (
        "InvalidQueueName",
        "for names that are known at run time only; a constant's doesn't compile",
    ),
    (
        "Serialize",
        "what a type's own `Serialize` answers depends on the value",
    ),
    ("PayloadTooLarge", "a size depends on the value"),
    ("PayloadTooDeep", "a depth depends on the value"),
    (
        "Decode",
        "another version of a program, or another program, has sent it",
    ),
    (
        "DelayTooLong",
        "a `Duration` holds more than PostgreSQL's time does, and is computed at run time",
    ),
    ("LimitOutOfRange", "a number that is computed at run time"),
    (
        "LeaseOutOfRange",
        "a `Duration` that is computed at run time",
    ),
    (
        "LeaseLost",
        "time passes, and then the message goes to another process",
    ),
    ("AcquireTimeout", "load"),
    (
        "Closed",
        "clones share a pool, and one of them can close it",
    ),
    ("Connect", "the network, the server"),
    ("ConnectionLost", "the network, the server"),
    (
        "NotStored",
        "the network, the server, for longer than a send is tried",
    ),
    (
        "OutcomeUnknown",
        "the network, the server, at the worst moment",
    ),
    ("Database", "the server refuses, for reasons of its own"),
];

#[test]
fn an_error_exists_only_if_no_type_can_rule_it_out() {
    let code = Crate::read();
    let variants: BTreeSet<String> = match code.find("error", "Error") {
        Item::Enum(error) => error
            .variants
            .iter()
            .map(|variant| variant.ident.to_string())
            .collect(),
        _ => panic!("`Error` is an enum"),
    };
    let argued: BTreeSet<String> = UNAVOIDABLE
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let unargued: Vec<_> = variants.difference(&argued).collect();
    let gone: Vec<_> = argued.difference(&variants).collect();
    assert!(
        unargued.is_empty() && gone.is_empty(),
        "`Error` has {unargued:?}: say here why no type can rule it out, or rule it out; and it no longer has {gone:?}"
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the checkout")
        .to_owned()
}

/// The library's source, by module: `postgres::queues` for src/postgres/queues.rs.
struct Crate {
    modules: BTreeMap<String, File>,
}

/// An item as users name it, and where it is defined.
struct Exported {
    path: String,
    module: String,
    name: String,
}

impl Crate {
    fn read() -> Self {
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

    fn find(&self, module: &str, name: &str) -> &Item {
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
                        if module.is_empty() {
                            return; // A crate, see `crates`.
                        }
                        exported.push(Exported {
                            path: format!("{prefix}::{name}"),
                            module: module[1..].join("::"),
                            name: name.clone(),
                        });
                    });
                }
                // Pages, and no items.
                Item::Mod(module) if module.ident == "guide" => {}
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

    fn surface(&self) -> String {
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

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("cfg"))
}

/// What matters to users of an item's attributes, ahead of it.
fn marks(attributes: &[Attribute]) -> String {
    let marks = attributes.iter().filter_map(|attribute| {
        let path = attribute.path();
        let kept = ["must_use", "non_exhaustive", "deprecated", "serde", "doc"];
        let kept = kept.iter().any(|name| path.is_ident(name));
        let hidden = path.is_ident("doc") && !tidy(&attribute.meta).contains("hidden");
        let mark = if path.is_ident("serde") {
            tidy(&attribute.meta)
        } else {
            // The words of `must_use` are the compiler's business, and under tests/ui.
            tidy(path)
        };
        (kept && !hidden).then(|| format!("#[{mark}] "))
    });
    marks.collect()
}

/// The item itself, and what is inside of it.
fn shown(item: &Item, path: &str) -> (String, Vec<String>) {
    match item {
        Item::Fn(item) => {
            let call = signature(&item.sig).replacen(&item.sig.ident.to_string(), path, 1);
            (format!("{}{call}", marks(&item.attrs)), Vec::new())
        }
        Item::Struct(item) => {
            let heading = format!(
                "{}struct {path}{}",
                marks(&item.attrs),
                generic(&item.generics)
            );
            let mut lines = fields(&item.fields, |field| is_public(&field.vis));
            if derived(&item.attrs)
                .iter()
                .any(|name| name == "TypedBuilder")
            {
                lines.extend(setters(&item.attrs, &item.fields));
            }
            lines.extend(derives(&item.attrs));
            (heading, lines)
        }
        Item::Enum(item) => {
            let heading = format!(
                "{}enum {path}{}",
                marks(&item.attrs),
                generic(&item.generics)
            );
            let mut lines: Vec<String> = item
                .variants
                .iter()
                .map(|variant| {
                    let inside = fields(&variant.fields, |_| true).join(", ");
                    match variant.fields {
                        Fields::Named(_) => format!("{} {{ {inside} }}", variant.ident),
                        Fields::Unnamed(_) => format!("{}({inside})", variant.ident),
                        Fields::Unit => variant.ident.to_string(),
                    }
                })
                .collect();
            lines.extend(derives(&item.attrs));
            (heading, lines)
        }
        Item::Trait(item) => {
            let above = tidy(&item.supertraits);
            let above = if above.is_empty() {
                above
            } else {
                format!(": {above}")
            };
            let mut heading = format!("trait {path}{}{above}", generic(&item.generics));
            heading += &condition(item.generics.where_clause.as_ref());
            let lines = item.items.iter().map(|item| match item {
                TraitItem::Fn(item) => match item.default {
                    Some(_) => format!("{} {{ .. }}", signature(&item.sig)),
                    None => signature(&item.sig),
                },
                TraitItem::Type(item) => {
                    let (name, bounds) = (&item.ident, tidy(&item.bounds));
                    let bounds = if bounds.is_empty() {
                        bounds
                    } else {
                        format!(": {bounds}")
                    };
                    format!("type {name}{bounds}")
                }
                other => panic!("{path}: list such items, too: {}", tidy(other)),
            });
            (heading, lines.collect())
        }
        Item::Type(item) => {
            let (generics, of) = (generic(&item.generics), tidy(&item.ty));
            (format!("type {path}{generics} = {of}"), Vec::new())
        }
        Item::Static(item) => (format!("static {path}: {}", tidy(&item.ty)), Vec::new()),
        Item::Const(item) => (format!("const {path}: {}", tidy(&item.ty)), Vec::new()),
        other => panic!("{path}: list such items, too: {}", tidy(other)),
    }
}

fn fields(fields: &Fields, shows: impl Fn(&syn::Field) -> bool) -> Vec<String> {
    fields
        .iter()
        .filter(|field| shows(field))
        .map(|field| match &field.ident {
            Some(name) => format!("{name}: {}", tidy(&field.ty)),
            None => tidy(&field.ty),
        })
        .collect()
}

/// What `typed-builder` makes of each field.
fn setters(attributes: &[Attribute], fields: &Fields) -> Vec<String> {
    let options = |attributes: &[Attribute]| -> Option<String> {
        let options = attributes
            .iter()
            .find(|attribute| attribute.path().is_ident("builder"))?;
        Some(without_docs(&tidy(&options.meta)))
    };
    let of_all = options(attributes);
    let shown = of_all.as_deref().unwrap_or_default();
    let mut setters = vec![format!("fn builder() -> .. {shown}").trim_end().to_owned()];
    for field in fields {
        let name = field.ident.as_ref().expect("it has named fields");
        let options = field
            .attrs
            .iter()
            .find(|attribute| attribute.path().is_ident("builder"));
        let options = options.map_or_else(
            || "required".to_owned(),
            |options| without_docs(&tidy(&options.meta)),
        );
        setters.push(format!("builder().{name}({}) {options}", tidy(&field.ty)));
    }
    setters
}

/// Docs are read in the documentation.
fn without_docs(options: &str) -> String {
    let mut options = options.to_owned();
    while let Some(start) = options.find("doc = \"") {
        let text = start + "doc = \"".len();
        let mut letters = options[text..].char_indices();
        let mut end = options.len();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => drop(letters.next()),
                '"' => {
                    end = text + at + 1;
                    break;
                }
                _ => {}
            }
        }
        options.replace_range(start..end, "");
    }
    for (left, right) in [
        (", )", ")"),
        ("setter()", ""),
        ("builder_type()", ""),
        (", )", ")"),
    ] {
        options = options.replace(left, right);
    }
    options.replace("builder()", "")
}

fn derived(attributes: &[Attribute]) -> Vec<String> {
    let mut names = Vec::new();
    for attribute in attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("derive"))
    {
        let _ = attribute.parse_nested_meta(|meta| {
            names.push(tidy(&meta.path));
            Ok(())
        });
    }
    names.sort();
    names
}

fn derives(attributes: &[Attribute]) -> Vec<String> {
    let names = derived(attributes);
    if names.is_empty() {
        Vec::new()
    } else {
        vec![format!("derive {}", names.join(", "))]
    }
}

fn methods(item: &ItemImpl) -> Vec<String> {
    let on = condition(item.generics.where_clause.as_ref());
    let of = format!(
        "impl{} {}{on}",
        generic(&item.generics),
        tidy(&item.self_ty)
    );
    item.items
        .iter()
        .filter_map(|item| match item {
            ImplItem::Fn(item) if is_public(&item.vis) => Some(format!(
                "{of}: {}{}",
                marks(&item.attrs),
                signature(&item.sig)
            )),
            ImplItem::Const(item) if is_public(&item.vis) => {
                Some(format!("{of}: const {}: {}", item.ident, tidy(&item.ty)))
            }
            _ => None,
        })
        .collect()
}

fn implementation(item: &ItemImpl) -> Vec<String> {
    let (_, of, _) = item.trait_.as_ref().expect("it is of a trait");
    let types: Vec<String> = item
        .items
        .iter()
        .filter_map(|item| match item {
            ImplItem::Type(item) => Some(format!("{} = {}", item.ident, tidy(&item.ty))),
            _ => None,
        })
        .collect();
    let types = if types.is_empty() {
        String::new()
    } else {
        format!(" {{ {} }}", types.join(", "))
    };
    let on = condition(item.generics.where_clause.as_ref());
    let (generics, subject) = (generic(&item.generics), tidy(&item.self_ty));
    vec![format!(
        "impl{generics} {} for {subject}{on}{types}",
        tidy(of)
    )]
}

/// The name of the type that an implementation is for, without references.
fn subject(of: &Type) -> String {
    match of {
        Type::Path(path) => path.path.segments.last().expect("a name").ident.to_string(),
        Type::Reference(reference) => subject(&reference.elem),
        _ => String::new(),
    }
}

fn signature(signature: &Signature) -> String {
    // Names of arguments are documentation, but `mut` on them isn't the caller's business.
    let mut signature = signature.clone();
    for argument in &mut signature.inputs {
        match argument {
            FnArg::Receiver(receiver) if receiver.reference.is_none() => receiver.mutability = None,
            FnArg::Typed(argument) => {
                if let syn::Pat::Ident(name) = &mut *argument.pat {
                    name.mutability = None;
                }
            }
            FnArg::Receiver(_) => {}
        }
    }
    tidy(&signature)
}

fn generic(generics: &Generics) -> String {
    tidy(&generics.params)
        .split_whitespace()
        .next()
        .map_or_else(String::new, |_| format!("<{}>", tidy(&generics.params)))
}

fn condition(on: Option<&WhereClause>) -> String {
    on.map_or_else(String::new, |on| {
        format!(" {}", tidy(on).trim_end_matches(','))
    })
}

/// Tokens as one would write them, on one line.
fn tidy(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string().replace('\n', " ");
    while text.contains("  ") {
        text = text.replace("  ", " ");
    }
    for (from, to) in [
        (" :: ", "::"),
        (":: ", "::"),
        (" ::", "::"),
        (" ,", ","),
        (" ;", ";"),
        (" : ", ": "),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        ("& ", "&"),
        (" !", "!"),
        ("? Sized", "?Sized"),
        ("( ", "("),
        (" )", ")"),
        ("[ ", "["),
        (" ]", "]"),
        (" .", "."),
        (". ", "."),
        (",)", ")"),
        (", >", ">"),
    ] {
        text = text.replace(from, to);
    }
    // A call or a list of arguments stands at its name.
    let mut out = String::new();
    for (at, letter) in text.char_indices() {
        let opens = text[at..].starts_with(" (");
        let after_a_name =
            out.ends_with(|last: char| last.is_alphanumeric() || last == '>' || last == '_');
        let word = out
            .rsplit(|c: char| !c.is_alphanumeric())
            .next()
            .unwrap_or_default();
        let after_a_word = ["as", "dyn", "for", "impl", "mut", "in", "where"].contains(&word);
        if opens && after_a_name && !after_a_word && !out.ends_with("->") {
            continue;
        }
        out.push(letter);
    }
    out.trim().trim_end_matches(',').to_owned()
}
