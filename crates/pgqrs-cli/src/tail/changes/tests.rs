//! What is an event, and what is looked up.

use chrono::TimeDelta;

use super::*;

fn waiting() -> Seen {
    Seen {
        is_leased: false,
        is_parked: false,
        attempt: 0,
        snoozes: 0,
        consumer: None,
        visible_at: DateTime::UNIX_EPOCH,
        enqueued_at: DateTime::UNIX_EPOCH,
        last_error: None,
    }
}

fn kinds(before: Option<Seen>, now: Seen) -> Vec<Kind> {
    let id = MessageId::from(7);
    let mut first = Snapshot::starting_at(DateTime::UNIX_EPOCH);
    let mut second = first.next();
    first.messages.extend(before.map(|before| (id, before)));
    second.messages.insert(id, now);
    let events = first.changes(&mut second, New::default(), &[]);
    events.iter().map(|event| event.kind).collect()
}

#[test]
fn each_step_of_a_message_is_an_event() {
    let leased = Seen {
        is_leased: true,
        attempt: 1,
        consumer: Some(WorkerId::from(3)),
        ..waiting()
    };
    let failed = Seen {
        is_leased: false,
        last_error: Some("no".to_owned()),
        visible_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(5),
        ..leased.clone()
    };
    let again = Seen {
        is_leased: true,
        attempt: 2,
        ..failed.clone()
    };
    let put_off = Seen {
        is_leased: false,
        snoozes: 1,
        visible_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(5),
        ..leased.clone()
    };
    let released = Seen {
        is_leased: false,
        ..leased.clone()
    };
    assert_eq!(kinds(None, waiting()), [Kind::Sent]);
    assert_eq!(kinds(None, leased.clone()), [Kind::Sent, Kind::Claimed]);
    assert_eq!(kinds(Some(waiting()), leased.clone()), [Kind::Claimed]);
    assert_eq!(kinds(Some(leased.clone()), leased.clone()), []);
    assert_eq!(kinds(Some(leased.clone()), failed.clone()), [Kind::Failed]);
    assert_eq!(kinds(Some(failed), again.clone()), [Kind::Claimed]);
    assert_eq!(
        kinds(Some(leased.clone()), again),
        [Kind::Failed, Kind::Claimed]
    );
    assert_eq!(kinds(Some(leased.clone()), put_off), [Kind::Snoozed]);
    assert_eq!(kinds(Some(leased), released), [Kind::Released]);
}

#[test]
fn what_was_sent_before_it_started_is_no_news() {
    let mut before = Snapshot::starting_at(DateTime::UNIX_EPOCH + TimeDelta::seconds(1));
    let mut now = before.next();
    now.messages.insert(MessageId::from(7), waiting());
    assert_eq!(before.changes(&mut now, New::default(), &[]), []);
    // And no message is sent twice.
    before = Snapshot::starting_at(DateTime::UNIX_EPOCH);
    now = before.next();
    now.messages.insert(MessageId::from(7), waiting());
    assert_eq!(before.changes(&mut now, New::default(), &[]).len(), 1);
    assert_eq!(before.changes(&mut now, New::default(), &[]), []);
}

#[test]
fn messages_that_wait_are_looked_up_in_turn_after_those_that_vanished() {
    let mut before = Snapshot::starting_at(DateTime::UNIX_EPOCH);
    let parked = Seen {
        is_parked: true,
        ..waiting()
    };
    for id in 1..=5 {
        before.messages.insert(MessageId::from(id), parked.clone());
    }
    before.messages.insert(MessageId::from(9), waiting());
    let mut looked_up = Vec::new();
    for _ in 0..3 {
        let mut now = before.next();
        let ids = now.carry_over(&before, 3, None);
        looked_up.push(ids.iter().map(|id| id.get()).collect::<Vec<_>>());
        for id in ids.into_iter().filter(|id| id.get() < 9) {
            now.messages.insert(id, parked.clone());
        }
        before = now;
    }
    assert_eq!(looked_up, [vec![9, 1, 2], vec![3, 4, 5], vec![1, 2, 3]]);
    assert_eq!(before.messages.len(), 5, "none is forgotten");
}

#[test]
fn what_ended_before_it_was_looked_at_is_news_once_and_in_its_order() {
    let id = MessageId::from;
    let end = |number| End {
        id: id(number),
        enqueued_at: DateTime::UNIX_EPOCH,
        event: Event::new(id(number), Kind::Dead),
    };
    let new = |ends: &[i64]| New {
        ends: ends.iter().copied().map(end).collect(),
        known_after: Some(id(3)),
    };
    let mut before = Snapshot::starting_at(DateTime::UNIX_EPOCH);
    // One that isn't looked at any more, and two that were.
    for number in [2, 5, 6] {
        before.messages.insert(id(number), waiting());
        assert!(before.announce(id(number), DateTime::UNIX_EPOCH));
    }
    let mut now = before.next();
    assert_eq!(now.carry_over(&before, 9, Some(id(3))), [id(2)]);
    let fates = [(id(2), None)];
    let events = before.changes(&mut now, new(&[4, 6]), &fates);
    let kinds: Vec<_> = events
        .iter()
        .map(|event| (event.id.get(), event.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            (2, Kind::Done),
            (5, Kind::Done),
            (6, Kind::Dead),
            (4, Kind::Sent),
            (4, Kind::Dead),
        ]
    );
    let mut after = now.next();
    assert_eq!(now.changes(&mut after, new(&[4, 6]), &[]), []);
}

#[test]
fn more_messages_that_are_gone_than_are_looked_up_wait_for_the_next_look() {
    let mut before = Snapshot::starting_at(DateTime::UNIX_EPOCH);
    for id in 1..=5 {
        before.messages.insert(MessageId::from(id), waiting());
    }
    let mut looked_up = Vec::new();
    for _ in 0..3 {
        let mut now = before.next();
        let ids = now.carry_over(&before, 2, None);
        looked_up.push(ids.iter().map(|id| id.get()).collect::<Vec<_>>());
        before = now;
    }
    assert_eq!(looked_up, [vec![1, 2], vec![3, 4], vec![5]]);
}

#[test]
fn a_message_that_is_nowhere_is_done() {
    let before = Snapshot::starting_at(DateTime::UNIX_EPOCH);
    let fates = [(MessageId::from(7), None)];
    let events = before.changes(&mut before.next(), New::default(), &fates);
    assert_eq!(events, [Event::new(MessageId::from(7), Kind::Done)]);
}
