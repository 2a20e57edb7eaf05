//! What is an expression and what isn't, in words; and that the check and croner agree on it.

use proptest::prelude::*;

use super::*;

fn problem(expression: &str) -> String {
    let invalid = Cron::parse(expression.to_owned()).expect_err(expression);
    invalid.to_string()
}

#[test]
fn each_mistake_names_its_field() {
    for (expression, expected) in [
        ("0 25 * * *", "the hour `25` is not in 0-23"),
        ("60 * * * *", "the minute `60` is not in 0-59"),
        ("77 * * * * *", "the second `77` is not in 0-59"),
        ("0 0 0 * *", "the day of the month `0` is not in 1-31"),
        ("0 0 1 13 *", "the month `13` is not in 1-12 or JAN-DEC"),
        (
            "0 0 * * 8",
            "the day of the week `8` is not in 0-7 or SUN-SAT",
        ),
        (
            "0 0 * * MONDAY",
            "the day of the week `MONDAY` is not a value, and those are 0-7 or SUN-SAT",
        ),
        (
            "0 0 * FEB-JAN *",
            "the month `FEB-JAN` ends before it begins: write it as a list",
        ),
        (
            "0 9-17/0 * * *",
            "the hour `9-17/0` has a step that is zero, or beyond 0-23",
        ),
        (
            "*/60 * * * *",
            "the minute `*/60` has a step that is zero, or beyond 0-59",
        ),
        (
            "0/5 * * * *",
            "the minute `0/5` has a step, which belongs to `*` or to a range such as `0-30/5`",
        ),
        (
            "0,,5 * * * *",
            "the minute `0,,5` has an empty part between its commas",
        ),
        (
            "0 1,* * * *",
            "the hour has a `*` beside others, which would mean nothing: `*`",
        ),
        (
            "0 0 * * FRI#6",
            "the day of the week `FRI#6` is not one of #1 to #5",
        ),
        (
            "0 0 30 2 *",
            "this never fires, since none of its months has the day of the month `30`",
        ),
        (
            "0 0 31 APR,JUN *",
            "this never fires, since none of its months has the day of the month `31`",
        ),
        (
            "0 0 * *",
            "a cron expression has five fields, or six with seconds: `0 0 * *`",
        ),
        (
            "",
            "a cron expression has five fields, or six with seconds: ``",
        ),
        (
            "@reboot",
            "`@reboot` is none of @yearly, @annually, @monthly, @weekly, @daily and @hourly",
        ),
        (
            "0 é * * *",
            "the hour `é` is not a value, and those are 0-23",
        ),
        (
            "0 0 * * L",
            "the day of the week `L` is not a value, and those are 0-7 or SUN-SAT",
        ),
    ] {
        assert_eq!(problem(expression), expected, "{expression}");
    }
    // What is very long is shortened, at a character's boundary.
    let long = problem(&format!("0 {} * * *", "é".repeat(10_000)));
    assert!(long.len() < 200 && long.contains("é…`"), "{long}");
}

#[test]
fn what_fires_seldom_is_valid() {
    for expression in [
        "0 0 29 2 *",
        "0 0 31 JAN-DEC *",
        "0 0 30,L FEB *",
        // Either of the two days.
        "0 0 30 2 MON",
        "59 59 23 31 12 *",
        "  0\t0 * * sun-SAT  ",
        "@DAILY",
    ] {
        assert!(Cron::parse(expression).is_ok(), "{expression}");
    }
}

/// A field of an expression, mostly valid.
fn field(
    min: u8,
    max: u8,
    names: &'static [&'static str],
    extra: &'static [&'static str],
) -> BoxedStrategy<String> {
    let number = (min..=max.saturating_add(1)).prop_map(|value| value.to_string());
    let value = if names.is_empty() {
        number.boxed()
    } else {
        prop_oneof![
            number,
            proptest::sample::select(names).prop_map(str::to_owned)
        ]
        .boxed()
    };
    let range = (value.clone(), value.clone()).prop_map(|(a, b)| format!("{a}-{b}"));
    let step = 0..=max + 1;
    let part = prop_oneof![
        4 => value.clone(),
        3 => range.clone(),
        2 => (prop_oneof![Just("*".to_owned()), range, value], step).prop_map(|(base, step)| format!("{base}/{step}")),
        1 => proptest::sample::select(if extra.is_empty() { &["*"][..] } else { extra }).prop_map(str::to_owned),
    ];
    prop_oneof![
        2 => Just("*".to_owned()),
        3 => proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join(",")),
    ]
    .boxed()
}

fn expression() -> impl Strategy<Value = String> {
    const MONTHS: &[&str] = &["JAN", "feb", "MAR", "Apr", "DEC"];
    const DAYS: &[&str] = &["SUN", "mon", "FRI", "Sat"];
    let minute = || field(0, 59, &[], &[]);
    let five = (
        minute(),
        field(0, 23, &[], &[]),
        field(1, 31, &[], &["L"]),
        field(1, 12, MONTHS, &[]),
        field(0, 7, DAYS, &["5L", "FRIL", "MON#1", "3#5", "7L", "SUN#2"]),
    );
    (proptest::option::of(minute()), five).prop_map(
        |(second, (minute, hour, day, month, weekday))| {
            let five = format!("{minute} {hour} {day} {month} {weekday}");
            second.map_or(five.clone(), |second| format!("{second} {five}"))
        },
    )
}

/// An expression in which some characters were changed.
fn mutated() -> impl Strategy<Value = String> {
    let change = (
        any::<prop::sample::Index>(),
        "[-0-9*,/LW#?+@A-Z é]",
        0..3_u8,
    );
    (expression(), proptest::collection::vec(change, 1..4)).prop_map(|(expression, changes)| {
        let mut letters: Vec<char> = expression.chars().collect();
        for (place, other, kind) in changes {
            if letters.is_empty() {
                continue;
            }
            let place = place.index(letters.len());
            let other = other.chars().next().unwrap_or(' ');
            match kind {
                0 => letters[place] = other,
                1 => letters.insert(place, other),
                _ => {
                    letters.remove(place);
                }
            }
        }
        letters.into_iter().collect()
    })
}

/// The check against croner: what it accepts, croner accepts and reads alike, and finds a time for.
fn agree(expression: &str) {
    let theirs = expression.parse::<croner::Cron>();
    let Ok(fields) = check(expression) else {
        return;
    };
    let theirs = theirs.unwrap_or_else(|error| panic!("croner refuses {expression:?}: {error}"));
    assert_eq!(
        fields.values(),
        [
            &theirs.pattern.seconds,
            &theirs.pattern.minutes,
            &theirs.pattern.hours,
            &theirs.pattern.days,
            &theirs.pattern.months,
            &theirs.pattern.days_of_week,
        ]
        .map(|field| field
            .values()
            .iter()
            .fold(0, |bits, value| bits | 1_u64 << value)),
        "{expression:?}"
    );
    let start = chrono::DateTime::UNIX_EPOCH.naive_utc();
    let next = theirs.find_next_occurrence(&start, false);
    assert!(next.is_ok(), "{expression:?} never fires");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn what_is_accepted_is_read_alike_by_croner_and_fires(expression in expression()) {
        agree(&expression);
    }

    #[test]
    fn what_is_accepted_after_random_changes_is_read_alike_too(expression in mutated()) {
        agree(&expression);
    }

    /// What croner refuses, or what never fires, is refused.
    #[test]
    fn whatever_text_it_is_the_check_answers(text in "\\PC{0,40}") {
        agree(&text);
        if let Err(mistake) = check(&text) {
            let sentence = Sentence::of(&text, mistake);
            prop_assert!(!sentence.as_str().is_empty() && sentence.as_str() != "invalid");
        }
    }
}

/// Half of what is generated is valid, so that both answers are compared.
#[test]
fn random_expressions_are_valid_as_often_as_not() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};

    let mut runner = TestRunner::deterministic();
    let valid = (0..1_000)
        .filter(|_| {
            let tree = expression().new_tree(&mut runner).expect("a value");
            check(&tree.current()).is_ok()
        })
        .count();
    assert!((100..900).contains(&valid), "{valid} of 1,000");
}
