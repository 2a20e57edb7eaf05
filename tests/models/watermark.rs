//! Which messages a claim finds: it reads from its process's watermark on, and now and then from the beginning.
//!
//! # What happens
//!
//! Messages are sent and committed, sometimes late. They are claimed one at a time, with two claims at once: of one process
//! or of two. A claim locks the first ready message that it reads and that nobody has
//! locked, and then commits or is rolled back. When a claim has ended, it moves its process's watermark. What is claimed is
//! in flight until it is acknowledged, released, or its lease runs out; the message's place in the order doesn't change by
//! any of this, except by a release.
//!
//! A claim is a rescan, which reads from the beginning, if its process has not made one for [`REST`].
//!
//! The rules are [`Rule`], and the tests show what each is needed for.
//!
//! # What is promised
//!
//! - A claim that is no rescan finds a ready message, unless that one's transaction was open for longer than the slack, its
//!   lease has run out, or its claim was rolled back.
//! - Nothing that is ready stays hidden from a process that claims for longer than the time between two rescans.
//! - If a rescan finds more than it can take, the next claim goes on behind what it took.
//!
//! # What is not modelled
//!
//! - Priorities: each has a watermark of its own.
//! - Dead rows, which are why there are watermarks at all.

mod search;

use stateright::{Model, Property};

use crate::{breaks, holds};

/// A rule of the protocol, each of which can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A watermark stays behind the present by the slack.
    Slack,
    /// A watermark is a time and an id. (Without the rule: a time, and everything up to and including it is skipped.)
    Pair,
    /// A claim that found enough moves the watermark to its last message, and not to the present.
    StopAtTheLast,
    /// Now and then a claim reads from the beginning,
    Rescan,
    /// and sets the watermark to the place at which it stopped, also if that is further back.
    SetByARescan,
    /// A claim that began before such a rescan ended leaves the watermark alone.
    OnlySinceTheRescan,
    /// What is released takes its place as of now. (Without the rule: only its lease ends.)
    ReleasedIsOfNow,
}

const SLACK: u8 = 1;
const LEASE: u8 = 1;
/// The time between two rescans.
const REST: u8 = 2;

#[derive(Debug, Clone)]
struct Protocol {
    without: Option<Rule>,
    /// The process of each of the two claims that can be under way.
    claimers: [usize; 2],
    messages: usize,
    claims: u8,
    end: u8,
}

/// A place in the order. The id is that of a message, counted from 1; 0 comes before all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Position {
    visible_at: u8,
    id: u8,
}

const BEGINNING: Position = Position {
    visible_at: 0,
    id: 0,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Message {
    Unsent,
    /// Its transaction is open.
    Open {
        visible_at: u8,
    },
    Stored {
        visible_at: u8,
        lease_until: u8,
        /// From when on it could be claimed, if it isn't leased.
        ready_since: u8,
        /// Whether a claim may overlook it.
        excused: bool,
    },
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    watermark: Position,
    rescanned_at: Option<u8>,
    /// Rescans that have ended.
    rescans: u8,
    /// Where the last claim stopped, if it was a rescan that found enough.
    goes_on_behind: Option<Position>,
}

/// A claim that was executed and has not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Claim {
    is_rescan: bool,
    /// The rescans of its process that had ended when it began.
    rescans: u8,
    at: u8,
    locked: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    messages: Vec<Message>,
    processes: [Process; 2],
    claims: [Option<Claim>; 2],
    claimed: u8,
    released: bool,
    rolled_back: bool,
    /// A claim overlooked what it should have found,
    overlooked: bool,
    /// or what was ready for too long,
    hidden: bool,
    /// or what lies behind the last message of a rescan.
    skipped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Send(usize),
    /// Commits the transaction of a send.
    Store(usize),
    Claim(usize),
    Commit(usize),
    Rollback(usize),
    Acknowledge(usize),
    Release(usize),
    Tick,
}

impl Protocol {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn claim(&self, state: &mut State, index: usize) {
        state.claimed += 1;
        let now = state.now;
        let process = &mut state.processes[self.claimers[index]];
        let is_due = process.rescanned_at.is_none_or(|at| now - at >= REST);
        // The first one of a process has no watermark in any case.
        let is_rescan = is_due && (self.keeps(Rule::Rescan) || process.rescanned_at.is_none());
        let from = if is_rescan {
            BEGINNING
        } else {
            process.watermark
        };
        if is_rescan {
            process.rescanned_at = Some(now);
        }
        let (rescans, goes_on_behind) = (process.rescans, process.goes_on_behind);
        let mut others = state.claims.iter().enumerate();
        let is_rescanning = others.any(|(other, claim)| {
            self.claimers[other] == self.claimers[index]
                && claim.is_some_and(|claim| claim.is_rescan)
        });
        let is_behind = |position: Position| {
            if self.keeps(Rule::Pair) {
                position > from
            } else {
                position.visible_at > from.visible_at || from == BEGINNING
            }
        };
        let ready = state.ready();
        let found = ready.iter().copied().find(|(at, ..)| is_behind(*at));
        let missed = |position: Position| found.is_none_or(|(at, ..)| position < at);
        for (position, index) in &ready {
            let Message::Stored {
                ready_since,
                excused,
                ..
            } = state.messages[*index]
            else {
                continue;
            };
            if missed(*position) {
                state.overlooked |= is_rescan || !excused;
                // While a rescan is under way, it may have locked what is ahead of this one.
                state.hidden |= now - ready_since >= REST && !is_rescanning;
                state.skipped |= goes_on_behind.is_some_and(|last| *position > last);
            }
        }
        state.claims[index] = Some(Claim {
            is_rescan,
            rescans,
            at: now,
            locked: found.map(|(_, index)| index),
        });
    }

    fn commit(&self, state: &mut State, index: usize) {
        let Some(claim) = state.claims[index].take() else {
            return;
        };
        let recent = Position {
            visible_at: if self.keeps(Rule::Slack) {
                claim.at.saturating_sub(SLACK)
            } else {
                claim.at
            },
            id: 0,
        };
        let last = claim.locked.and_then(|locked| state.position(locked));
        let reached = match last {
            Some(last) if self.keeps(Rule::StopAtTheLast) => last.min(recent),
            _ => recent,
        };
        let process = &mut state.processes[self.claimers[index]];
        if claim.is_rescan {
            process.watermark = if self.keeps(Rule::SetByARescan) {
                reached
            } else {
                reached.max(process.watermark)
            };
            process.rescans += 1;
            process.goes_on_behind = last;
        } else if claim.rescans == process.rescans || !self.keeps(Rule::OnlySinceTheRescan) {
            process.watermark = reached.max(process.watermark);
            if claim.rescans == process.rescans {
                process.goes_on_behind = None;
            }
        }
        if let Some(Message::Stored {
            lease_until,
            ready_since,
            excused,
            ..
        }) = claim
            .locked
            .and_then(|locked| state.messages.get_mut(locked))
        {
            // If nothing else happens, it is ready again then, and below all watermarks.
            (*lease_until, *ready_since, *excused) = (claim.at + LEASE, claim.at + LEASE, true);
            if *lease_until <= state.now {
                *ready_since = state.now;
            }
        }
    }
}

impl State {
    fn position(&self, index: usize) -> Option<Position> {
        match self.messages[index] {
            Message::Stored { visible_at, .. } => Some(Position {
                visible_at,
                id: index as u8 + 1,
            }),
            _ => None,
        }
    }

    fn is_over(&self) -> bool {
        self.messages
            .iter()
            .all(|message| *message == Message::Gone)
    }

    fn is_locked(&self, index: usize) -> bool {
        let mut claims = self.claims.iter().flatten();
        claims.any(|claim| claim.locked == Some(index))
    }

    fn is_leased(&self, index: usize) -> bool {
        matches!(self.messages[index], Message::Stored { lease_until, .. } if lease_until > self.now)
    }

    /// Messages that can be claimed, in their order.
    fn ready(&self) -> Vec<(Position, usize)> {
        let all = 0..self.messages.len();
        let free = all.filter(|index| !self.is_locked(*index) && !self.is_leased(*index));
        let mut ready: Vec<_> = free
            .filter_map(|index| Some((self.position(index)?, index)))
            .collect();
        ready.sort_unstable();
        ready
    }
}

const FOUND: &str = "a claim finds what is ready";
const SOON: &str = "nothing is hidden for longer than until the next rescan";
const GOES_ON: &str = "claims go on behind a rescan";

const ONE_PROCESS: [usize; 2] = [0, 0];
const TWO_PROCESSES: [usize; 2] = [0, 1];

fn protocol(claimers: [usize; 2]) -> Protocol {
    Protocol {
        without: None,
        claimers,
        messages: 2,
        claims: 4,
        end: 4,
    }
}

/// One message, for longer.
fn for_longer() -> Protocol {
    Protocol {
        messages: 1,
        end: 6,
        ..protocol(ONE_PROCESS)
    }
}

/// Finds a way to break a promise if a rule is left out.
fn without(rule: Rule, promise: &'static str) {
    let all_rules = match rule {
        Rule::Rescan => for_longer(),
        _ => protocol(ONE_PROCESS),
    };
    let model = Protocol {
        without: Some(rule),
        ..all_rules
    };
    breaks(&format!("watermark without {rule:?}"), model, promise);
}

#[test]
fn two_claims_of_a_process_find_what_is_ready() {
    holds("watermark, one process", protocol(ONE_PROCESS));
}

#[test]
fn claims_of_two_processes_find_what_is_ready() {
    holds("watermark, two processes", protocol(TWO_PROCESSES));
}

#[test]
fn what_is_below_the_watermark_is_found_by_a_rescan() {
    holds("watermark, for longer", for_longer());
}

#[test]
fn without_slack_what_commits_a_little_late_is_overlooked() {
    without(Rule::Slack, FOUND);
}

#[test]
fn a_watermark_without_an_id_skips_the_rest_of_a_batch() {
    without(Rule::Pair, FOUND);
}

#[test]
fn a_watermark_beyond_the_last_claimed_skips_what_follows() {
    without(Rule::StopAtTheLast, FOUND);
}

#[test]
fn without_rescans_an_expired_lease_is_never_seen() {
    without(Rule::Rescan, SOON);
}

#[test]
fn a_rescan_that_leaves_the_watermark_finds_one_at_a_time() {
    without(Rule::SetByARescan, GOES_ON);
}

#[test]
fn a_claim_from_before_a_rescan_undoes_it() {
    without(Rule::OnlySinceTheRescan, GOES_ON);
}

#[test]
fn a_release_that_only_ends_the_lease_is_overlooked() {
    without(Rule::ReleasedIsOfNow, FOUND);
}
