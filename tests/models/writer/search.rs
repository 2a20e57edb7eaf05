//! Which steps are possible in a state, and what must hold in each.

use super::*;

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            writer: Writer {
                token: 0,
                since: None,
                number: 0,
                has_row: false,
                task: Task::Idle,
            },
            begun: 0,
            returned: [Returned::Nothing; MESSAGES],
            requests: BTreeSet::new(),
            running: BTreeSet::new(),
            server: Database::default(),
            disk: Database::default(),
            standby: Database::default(),
            crashes: 0,
            failovers: 0,
            holders: 0,
            excused: 0,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let group = state.writer.group();
        let overdue = group.is_some_and(|group| state.now - group.began >= GIVE_UP);
        let more = group.is_some_and(|group| group.attempts < self.attempts);
        match state.writer.task {
            Task::Idle if state.begun < self.batches.len() => steps.push(Step::Begin),
            Task::Idle => {}
            Task::Attempting(_) => {
                steps.push(Step::Settle);
                if more && !self.keeps(Rule::SettleFirst) {
                    steps.push(Step::Again);
                }
            }
            Task::Settling(_, settles) => {
                if settles < self.settles {
                    steps.push(Step::Settle);
                }
            }
            Task::Free(_) => {
                steps.push(Step::ReturnNotStored);
                if more {
                    steps.push(Step::Again);
                }
            }
        }
        match state.writer.task {
            Task::Settling(group, _) if group.messages & HASTY != 0 && group.messages != HASTY => {
                steps.push(Step::AnswerHasty);
            }
            _ => {}
        }
        if overdue && !matches!(state.writer.task, Task::Free(_)) {
            steps.push(Step::GiveUp);
        }

        for request in &state.requests {
            self.arrivals(state, *request, steps);
        }
        for running in &state.running {
            steps.push(if running.halfway {
                Step::Continue(*running)
            } else {
                Step::Commit(*running)
            });
            steps.push(Step::BreakOff(*running));
        }
        for (token, row) in &state.server.writers {
            if state.now - row.since > self.prune_age() && !state.locked(*token) {
                steps.push(Step::Prune(*token));
            }
        }
        if state.crashes < self.crashes {
            steps.push(Step::Crash);
        }
        if state.holders < self.holders {
            steps.push(Step::Hold);
        }
        if state.server != state.disk {
            steps.push(Step::Flush);
        }
        if state.failovers < self.failovers {
            steps.extend([Step::Replicate, Step::FailOver]);
        }
        if state.begun > 0 && state.now < END && (!overdue || !self.keeps(Rule::GiveUpInTime)) {
            steps.push(Step::Tick);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        let group = state.writer.group();
        match step {
            Step::Begin => self.begin(&mut next),
            Step::Settle => match state.writer.task {
                Task::Settling(group, place) => self.settle(&mut next, group, place),
                _ => self.settle(&mut next, group?, 0),
            },
            Step::Again => self.make_an_attempt(&mut next, group?),
            Step::AnswerHasty => {
                if let Task::Settling(group, _) = &mut next.writer.task {
                    group.messages &= !HASTY;
                    next.complete(HASTY, Returned::Unknown);
                }
            }
            Step::ReturnNotStored => {
                next.complete(group?.messages, Returned::NotStored);
                self.end(&mut next);
            }
            Step::GiveUp => self.give_up(&mut next, group?),
            Step::Execute(request) => self.execute(&mut next, request, true),
            Step::ExecuteAnswerLost(request) => self.execute(&mut next, request, false),
            Step::Continue(running) => {
                next.running.remove(&running);
                next.running.insert(Running {
                    halfway: false,
                    ..running
                });
            }
            Step::Commit(running) => self.commit(&mut next, running),
            Step::Refuse(request) => {
                if let Verb::Attempt { messages, .. } = request.verb {
                    self.refuse(&mut next, request, messages);
                }
            }
            Step::BreakOff(running) => {
                next.running.remove(&running);
                self.answer(&mut next, running.request, Reply::Failed);
            }
            Step::Crash => {
                next.crashes += 1;
                next.running.clear();
                next.server = next.disk.clone();
            }
            Step::Flush => next.disk = next.server.clone(),
            Step::Replicate => next.standby = next.disk.clone(),
            Step::FailOver => next.fail_over(self.keeps(Rule::EndWithTheServer)),
            Step::Hold => {
                next.holders += 1;
                next.server.is_held ^= true;
                next.on_disk(true);
            }
            Step::Prune(token) => {
                next.server.writers.remove(&token);
                next.on_disk(true);
            }
            Step::Tick => next.tick(),
        }
        self.tidy(&mut next);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NONE_TWICE, |_, state: &State| {
                (0..MESSAGES).all(|message| state.server.count(message) <= 1)
            }),
            Property::always(NONE_LOST, |_, state: &State| {
                (0..MESSAGES).all(|message| match state.returned[message] {
                    Returned::Stored { token, number } => {
                        // A large batch has a number for each of its statements, and one transaction.
                        (number - 2..=number)
                            .any(|number| state.server.stored.contains(&(message, token, number)))
                            || state.excused & 1 << message != 0
                    }
                    _ => true,
                })
            }),
            Property::always(DUPLICATES, |_, state: &State| {
                (0..MESSAGES).all(|message| match state.returned[message] {
                    Returned::Duplicate { token, number } => {
                        state.server.count(message) == 0
                            && state.server.skipped.contains(&(message, token, number))
                    }
                    _ => true,
                })
            }),
            Property::always(NOT_STORED, |_, state: &State| {
                (0..MESSAGES).all(|message| {
                    !matches!(
                        state.returned[message],
                        Returned::Refused | Returned::NotStored
                    ) || state.server.count(message) == 0
                })
            }),
            Property::always(REASONS_ARE_TRUE, |_, state: &State| {
                (0..MESSAGES).all(|message| {
                    state.returned[message] != Returned::Refused || REFUSABLE & 1 << message != 0
                })
            }),
            Property::always(ALL_END, |_, state: &State| {
                let group = state.writer.group();
                group.is_none_or(|group| state.now <= group.began + GIVE_UP)
            }),
            Property::always(NONE_QUEUES, |_, state: &State| {
                !state.requests.iter().any(|request| {
                    matches!(request.verb, Verb::Attempt { .. })
                        && state.awaits(request)
                        && state.locked(request.token)
                })
            }),
        ];
        properties.extend(self.happenings());
        properties
    }
}

/// Ensures that the model isn't vacuous.
impl Protocol {
    pub(super) fn happenings(&self) -> Vec<Property<Self>> {
        if self.batches.len() > 1 {
            return vec![
                Property::sometimes("a row is pruned", |_, state: &State| {
                    state.server.writers.is_empty() && !state.server.stored.is_empty()
                }),
                Property::sometimes(
                    "one token sends twice",
                    |_, state: &State| matches!(state.returned[2], Returned::Stored { token: 0, number } if number > 2),
                ),
                Property::sometimes("a token retires", |_, state: &State| {
                    matches!(state.returned[0], Returned::Stored { token: 0, .. })
                        && matches!(state.returned[2], Returned::Stored { token: 1, .. })
                }),
            ];
        }
        if self.holders > 0 {
            return vec![
                Property::sometimes("settling finds a duplicate", |_, state: &State| {
                    let is_duplicate =
                        |returned: &Returned| matches!(returned, Returned::Duplicate { .. });
                    state.returned.iter().any(is_duplicate) && state.settling().next().is_some()
                }),
                Property::sometimes("the other message has gone by then", |_, state: &State| {
                    !state.server.is_held && matches!(state.returned[0], Returned::Duplicate { .. })
                }),
                Property::sometimes(
                    "the first attempt is refused, and the next finds a duplicate",
                    |_, state: &State| matches!(state.returned[0], Returned::Duplicate { number, .. } if number > 2),
                ),
            ];
        }
        let mut happenings = vec![
            Property::sometimes(
                "an attempt is settled before it arrives",
                |_, state: &State| {
                    state.requests.iter().any(|request| {
                        let row = state.server.writers.get(&request.token);
                        matches!(request.verb, Verb::Attempt { .. })
                            && row.is_some_and(|row| row.number == request.number + 1)
                    })
                },
            ),
            Property::sometimes("settling waits for an attempt", |_, state: &State| {
                state.settling().any(|request| {
                    state
                        .running
                        .iter()
                        .any(|running| running.is_attempt(request) && !running.halfway)
                })
            }),
            Property::sometimes("settling finds an attempt stored", |_, state: &State| {
                state.settling().any(|request| {
                    let row = state.server.writers.get(&request.token);
                    state.awaits(request) && row.is_some_and(|row| row.number == request.number)
                })
            }),
            Property::sometimes(
                "an attempt is settled as not stored, and another stores",
                |_, state: &State| matches!(state.returned[0], Returned::Stored { number, .. } if number > 2),
            ),
            Property::sometimes("settling is under way twice", |_, state: &State| {
                state.settling().filter(|one| state.awaits(one)).count() == 2
            }),
            Property::sometimes(
                "settling comes when its writer has moved on",
                |_, state: &State| {
                    state.settling().any(|request| {
                        let row = state.server.writers.get(&request.token);
                        row.is_some_and(|row| row.number > request.number + 1)
                    })
                },
            ),
            Property::sometimes("an unknown outcome was stored", |_, state: &State| {
                (0..MESSAGES).any(|message| {
                    state.returned[message] == Returned::Unknown && state.server.count(message) == 1
                })
            }),
            Property::sometimes("an unknown outcome was not stored", |_, state: &State| {
                state.now == END
                    && (0..MESSAGES).any(|message| {
                        state.returned[message] == Returned::Unknown
                            && state.server.count(message) == 0
                    })
            }),
            Property::sometimes(
                "an attempt arrives after its writer gave up",
                |_, state: &State| {
                    state.running.iter().any(|running| {
                        each(running.messages)
                            .all(|message| state.returned[message] == Returned::Unknown)
                    })
                },
            ),
        ];
        if self.batches.contains(&(A | B)) {
            happenings.push(Property::sometimes(
                "a message is refused, and the rest is stored",
                |_, state: &State| {
                    state.returned[1] == Returned::Refused
                        && matches!(state.returned[0], Returned::Stored { .. })
                },
            ));
            happenings.push(Property::sometimes(
                "a caller has gone, and the rest is stored",
                |_, state: &State| {
                    state.returned[0] == Returned::Unknown
                        && matches!(state.returned[1], Returned::Stored { .. })
                },
            ));
        }
        if self.large {
            happenings.push(Property::sometimes(
                "settling waits for half of a batch",
                |_, state: &State| {
                    state.settling().any(|request| {
                        state
                            .running
                            .iter()
                            .any(|running| running.is_attempt(request) && running.halfway)
                    })
                },
            ));
        }
        if self.failovers > 0 {
            happenings.push(Property::sometimes(
                "a fail-over takes what was acknowledged",
                |_, state: &State| state.excused != 0,
            ));
            happenings.push(Property::sometimes(
                "what a fail-over took is stored again before it is acknowledged",
                |_, state: &State| {
                    state.failovers > 0
                        && state.standby.count(0) == 0
                        && matches!(state.returned[0], Returned::Stored { number, .. } if number > 2)
                        && state.server.count(0) == 1
                },
            ));
        }
        happenings
    }
}
