//! How options are given, in one of two ways. Those of a call are methods of its builder, which ends in the call itself:
//! `enqueue().delay(300).execute(&store)`. Those that are kept or passed on are a value that typed-builder's code makes:
//! `Page::builder().limit(10).build()`.

use std::collections::{BTreeMap, BTreeSet};

use quote::quote;
use syn::{FnArg, ImplItem, ImplItemFn, Item, ItemImpl, ReturnType, Type, Visibility};

use crate::files;

/// Each call that has options, with the method that makes it.
const CALLS: [(&str, &str); 15] = [
    ("ConsumerBuilder", "create"),
    // Awaited, like any future.
    ("CancelByKey", "into_future"),
    ("CancelMessage", "into_future"),
    ("Dequeue", "execute"),
    // Awaited, like any future.
    ("Drain", "into_future"),
    ("Enqueue", "execute"),
    ("OwnedSchedules", "replace"),
    // Made by the batch that it is passed to.
    ("MessageBuilder", "into_message"),
    ("ProducerBuilder", "create"),
    // A declaration: a constant can't be made by typed-builder.
    ("Queue", "unique_by"),
    // Awaited, like any future.
    ("Run", "poll"),
    ("Schedule", "install"),
    // Awaited, like any future.
    ("SearchDeadLetters", "into_future"),
    ("SearchMessages", "into_future"),
    // A delivery has no options.
    ("TestDelivery", "build"),
];

fn name_of(kind: &Type) -> Option<String> {
    let Type::Path(path) = kind else { return None };
    path.path.segments.last().map(|last| last.ident.to_string())
}

/// Whether a method takes the builder and returns it with one more option.
fn is_setter(method: &ImplItemFn, builder: &str) -> bool {
    let takes_itself = matches!(
        method.sig.inputs.first(),
        Some(FnArg::Receiver(receiver)) if receiver.reference.is_none()
    );
    let ReturnType::Type(_, returned) = &method.sig.output else {
        return false;
    };
    let returns_itself =
        matches!(name_of(returned), Some(name) if name == "Self" || name == builder);
    matches!(method.vis, Visibility::Public(_))
        && takes_itself
        && returns_itself
        && method.sig.inputs.len() > 1
}

fn methods(of: &ItemImpl) -> impl Iterator<Item = &ImplItemFn> {
    of.items.iter().filter_map(|item| match item {
        ImplItem::Fn(method) => Some(method),
        _ => None,
    })
}

#[test]
fn options_are_methods_of_a_call_or_a_value_by_typed_builder() {
    let mut has_setters = BTreeSet::new();
    let mut methods_of = BTreeMap::<String, BTreeSet<String>>::new();
    let (mut typed, mut public) = (BTreeSet::new(), BTreeSet::new());
    for (path, text) in files("src", "rs") {
        for item in syn::parse_file(&text).expect("it is Rust").items {
            match item {
                Item::Impl(item) => {
                    let Some(name) = name_of(&item.self_ty) else {
                        continue;
                    };
                    for method in methods(&item) {
                        if is_setter(method, &name) {
                            has_setters.insert(name.clone());
                        }
                        // `enqueue(queue, Some(delay), true)` would be a third way.
                        let flags = method.sig.inputs.iter().filter(|argument| {
                            let shown = quote!(#argument).to_string();
                            shown.ends_with(": bool") || shown.contains(": Option <")
                        });
                        assert!(
                            !matches!(method.vis, Visibility::Public(_))
                                || flags.count() == 0
                                || is_setter(method, &name),
                            "{}: `{}` takes an option as an argument",
                            path.display(),
                            method.sig.ident
                        );
                        let of = methods_of.entry(name.clone()).or_default();
                        of.insert(method.sig.ident.to_string());
                    }
                }
                Item::Struct(item) if matches!(item.vis, Visibility::Public(_)) => {
                    let name = item.ident.to_string();
                    let attributes = &item.attrs;
                    if quote!(#(#attributes)*).to_string().contains("TypedBuilder") {
                        typed.insert(name.clone());
                    }
                    public.insert(name);
                }
                _ => {}
            }
        }
    }
    let has_setters: BTreeSet<_> = has_setters.intersection(&public).cloned().collect();
    let calls = CALLS.map(|(call, _)| call.to_owned());
    assert_eq!(has_setters, BTreeSet::from(calls), "the calls with options");
    for (call, end) in CALLS {
        assert!(methods_of[call].contains(end), "`{call}` has no `{end}`");
        assert!(!typed.contains(call), "`{call}` has both ways");
    }
    for name in &public {
        let is_value = ["Options", "Policy", "Filter", "Settings", "Config", "Page"]
            .iter()
            .any(|end| name.ends_with(end));
        assert!(
            !is_value || typed.contains(name),
            "`{name}` is not by typed-builder"
        );
    }
    assert!(typed.len() >= 5, "{typed:?}");
}
