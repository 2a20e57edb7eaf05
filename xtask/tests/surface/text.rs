//! An item as a line of text.

use quote::ToTokens;
use syn::{
    Attribute, Fields, FnArg, Generics, ImplItem, Item, ItemImpl, Signature, TraitItem, Type,
    WhereClause,
};

use super::source::is_public;

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
pub(super) fn shown(item: &Item, path: &str) -> (String, Vec<String>) {
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

pub(super) fn methods(item: &ItemImpl) -> Vec<String> {
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

pub(super) fn implementation(item: &ItemImpl) -> Vec<String> {
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
pub(super) fn subject(of: &Type) -> String {
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
pub(super) fn tidy(tokens: &impl ToTokens) -> String {
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
