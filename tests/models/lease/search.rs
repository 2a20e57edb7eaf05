//! Which steps are possible in a state, and what must hold in each.

use super::*;

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            consumers: [Consumer::Idle; 2],
            requests: BTreeSet::new(),
            looked: BTreeSet::new(),
            answers: BTreeSet::new(),
            log: vec![Some(Row {
                lease_until: 0,
                attempt: 0,
                lease_token: None,
                claim: None,
            })],
            claims: 0,
            extended: false,
            crashes: 0,
            undone: BTreeSet::new(),
            acknowledged: false,
            meddled: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let room = state.requests.len() < ON_THE_WAY;
        // Idle consumers are interchangeable, so it is enough if the first of them claims.
        let idle = |consumer: &Consumer| *consumer == Consumer::Idle;
        let gone = state.log.iter().all(Option::is_none);
        if let Some(index) = state.consumers.iter().position(idle)
            && state.claims < self.claims
            && room
            && !gone
        {
            steps.push(Step::Claim(index));
        }
        for (index, consumer) in state.consumers.iter().enumerate() {
            match *consumer {
                Consumer::Idle => continue,
                Consumer::Working { lease, .. } if room && lease.claim < 3 => {
                    if !state.extended {
                        steps.push(Step::Extend(index));
                    }
                    // Also when the lease has run out: a handler may take longer than it should.
                    steps.push(Step::Settle(index, Verb::Acknowledge));
                    steps.push(Step::Settle(index, Verb::Fail));
                }
                Consumer::Settling { place, .. } if room && place + 1 < self.sends => {
                    steps.push(Step::SettleAgain(index));
                }
                _ => {}
            }
            steps.push(Step::Forget(index));
        }
        if !room {
            steps.extend(state.requests.iter().copied().map(Step::Lose));
        }
        steps.extend(state.requests.iter().copied().map(Step::Execute));
        steps.extend(state.looked.iter().copied().map(Step::Write));
        steps.extend(state.answers.iter().copied().map(Step::Receive));
        if state.crashes < self.crashes {
            steps.extend((0..state.log.len()).map(Step::Crash));
        }
        if state.now < END {
            steps.push(Step::Tick);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Claim(index) => {
                next.claims += 1;
                next.consumers[index] = Consumer::Claiming {
                    claim: next.claims,
                    sent: next.now,
                };
                next.requests.insert(Request {
                    verb: Verb::Claim,
                    claim: next.claims,
                    token: None,
                    place: 0,
                });
            }
            Step::Extend(index) => {
                if let Consumer::Working { lease, extending } = &mut next.consumers[index] {
                    next.extended = true;
                    *extending = Some(state.now);
                    let lease = *lease;
                    next.post(Verb::Extend, lease, 0);
                }
            }
            Step::Settle(index, verdict) => {
                if let Consumer::Working { lease, .. } = state.consumers[index] {
                    next.consumers[index] = Consumer::Settling {
                        lease,
                        verdict,
                        place: 0,
                    };
                    next.post(verdict, lease, 0);
                    next.forget_answers();
                }
            }
            Step::SettleAgain(index) => {
                if let Consumer::Settling {
                    lease,
                    verdict,
                    place,
                } = &mut next.consumers[index]
                {
                    *place += 1;
                    let (lease, verdict, place) = (*lease, *verdict, *place);
                    next.post(verdict, lease, place);
                    next.forget_answers();
                }
            }
            Step::Forget(index) => {
                next.consumers[index] = Consumer::Idle;
                next.forget_answers();
            }
            Step::Receive(answer) => self.receive(&mut next, answer),
            Step::Lose(request) => {
                next.requests.remove(&request);
            }
            Step::Execute(request) => self.execute(&mut next, request),
            Step::Write(request) => self.write(&mut next, request),
            Step::Crash(commits) => next.crash(commits),
            Step::Tick => next.now += 1,
        }
        self.tidy(&mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE_HOLDER, |_, state: &State| {
                let standing = |lease: &Lease| !state.undone.contains(&lease.claim);
                state.holders().filter(standing).count() <= 1
            }),
            Property::always(OWN_DELIVERY, |_, state: &State| !state.meddled),
            Property::always(GONE_FOR_GOOD, |_, state: &State| {
                !state.acknowledged || state.table().is_none()
            }),
            // Ensures that the model isn't vacuous: each of these happens.
            Property::sometimes("a message is acknowledged", |_, state: &State| {
                state.acknowledged
            }),
            Property::sometimes(
                "a message is delivered again when its lease ran out",
                |_, state: &State| {
                    let expired = |consumer: &Consumer| matches!(consumer, Consumer::Working { lease, .. } if lease.until <= state.now);
                    state.holders().count() == 1 && state.consumers.iter().any(expired)
                },
            ),
            Property::sometimes("a lease is extended in time", |_, state: &State| {
                state.holders().any(|lease| lease.extended)
            }),
            Property::sometimes("an acknowledgement comes too late", |_, state: &State| {
                state.table().is_some()
                    && state.answers.iter().any(|answer| {
                        answer.to.verb == Verb::Acknowledge && answer.reply == Reply::LeaseLost
                    })
            }),
            Property::sometimes(
                "a late claim takes a lease without a holder",
                |_, state: &State| {
                    // While its consumer has sent a new claim.
                    matches!(state.consumers, [Consumer::Claiming { claim: 2, .. }, _])
                        && state.table().is_some_and(|row| row.claim == Some(1))
                        && !state.requests.iter().any(|request| request.claim == 1)
                },
            ),
        ];
        if self.sends > 1 {
            properties.push(Property::sometimes(
                "an acknowledgement that was carried out is lost when it is sent again",
                |_, state: &State| {
                    state.claims == 1
                        && state.table().is_none()
                        && state.answers.iter().any(|answer| {
                            answer.to.verb == Verb::Acknowledge && answer.reply == Reply::LeaseLost
                        })
                },
            ));
        }
        if self.crashes > 0 {
            properties.push(Property::sometimes(
                "a claim that a crash undid is delivered a second time beside",
                |_, state: &State| state.holders().count() == 2,
            ));
        }
        properties
    }
}
