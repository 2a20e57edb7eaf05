//! What the crate shows to its users, as a list that is checked in, so that a change is visible to its author and
//! to reviewers. And which errors can happen at run time, each with the reason why the types can't
//! rule it out.

#[path = "surface/source.rs"]
mod source;
#[path = "surface/text.rs"]
mod text;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use syn::Item;

use source::Crate;

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
const UNAVOIDABLE: [(&str, &str); 41] = [
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
    (
        "SchemaDistributed",
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
    ("QueueClosed", "an operator closes it from another process"),
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
        "InvalidHeader",
        "values, their sizes, and often names are known at run time only",
    ),
    (
        "InvalidCron",
        "for expressions that are known at run time only; a literal's doesn't compile",
    ),
    (
        "ScheduleNotFound",
        "schedules are in the database, and other processes delete them",
    ),
    (
        "ScheduleTaken",
        "names are in the database, and another owner has taken it",
    ),
    (
        "InvalidKey",
        "keys are known at run time only, and whether a payload is an array depends on its `Serialize`",
    ),
    (
        "Unkeyed",
        "a payload is only JSON where its type isn't known, and may not be what the queue's key is made from",
    ),
    ("KeyHeld", "another transaction is open for long"),
    (
        "GroupsNotEnabled",
        "whether a queue takes groups is a setting in the database",
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
