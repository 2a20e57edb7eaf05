//! Sends what standard input has, in batches, with constant memory: as many messages as there are.

use std::{
    fs::File,
    io::{self, IsTerminal},
    os::fd::AsFd,
    pin::pin,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use pgqrs::{Enqueued, Error, MessageId, Store, Transaction};
use serde_json::{json, value::RawValue};
use tokio::signal;

use super::{
    Options, StreamOptions,
    lines::{self, Line},
};
use crate::{
    exit::Exit,
    failure::{Failure, Result, exit_of, explain},
    output::{counted, grouped},
    session::Session,
};

/// How many invalid lines are reported, each with what is wrong.
const REPORTED: usize = 100;

pub(super) struct Stream {
    pub(super) queue: String,
    pub(super) options: Options,
    pub(super) stream: StreamOptions,
}

/// Where batches are stored: each by itself, or all in one transaction.
enum Target {
    Store(Store),
    Transaction(Box<Transaction>),
}

/// Messages that are about to be stored, with the numbers of their lines.
#[derive(Default)]
struct Pending {
    payloads: Vec<Box<RawValue>>,
    numbers: Vec<u64>,
}

/// What has become of the input so far.
#[derive(Default)]
struct Sent {
    messages: u64,
    first: Option<MessageId>,
    last: Option<MessageId>,
    /// All lines up to this one are stored, empty, or left out.
    line: u64,
    invalid: u64,
    /// The first of the invalid lines.
    reported: Vec<(u64, String)>,
}

impl Sent {
    fn add(&mut self, ids: &Enqueued, pending: &Pending) {
        self.messages += ids.len() as u64;
        self.first = self.first.or(ids.first().copied());
        self.last = ids.last().copied().or(self.last);
        self.line = pending.numbers.last().copied().unwrap_or(self.line);
    }

    fn leave_out(&mut self, number: u64, problem: String) {
        self.invalid += 1;
        if self.reported.len() < REPORTED {
            self.reported.push((number, problem));
        }
    }
}

impl Stream {
    pub(super) async fn run(self, session: &Session) -> Result<Exit> {
        let store = session.store().await?;
        // Before millions of lines are read.
        pgqrs::admin(&store).queue(&self.queue).await?;
        let started = Instant::now();
        let mut target = if self.stream.atomic {
            Target::Transaction(Box::new(store.begin().await?))
        } else {
            Target::Store(store)
        };
        let mut sent = Sent {
            line: self.stream.skip_lines.unwrap_or_default(),
            ..Sent::default()
        };
        let progress = progress();
        let mut outcome = self.send(&mut target, &mut sent, &progress).await;
        progress.finish_and_clear();
        if let Target::Transaction(transaction) = target {
            if outcome.is_ok() {
                outcome = transaction.commit().await.map_err(Failure::from);
            }
            if outcome.is_err() {
                (sent.messages, sent.first, sent.last) = (0, None, None);
            }
        }
        let result = json!({
            "queue": self.queue,
            "sent": sent.messages,
            "first_id": sent.first,
            "last_id": sent.last,
            "invalid_lines": sent.invalid,
        });
        session
            .output
            .print(&result, || self.summary(sent.messages, started.elapsed()))?;
        for (number, problem) in &sent.reported {
            session
                .output
                .note(&format!("left out line {number}: it {problem}"));
        }
        let more = sent.invalid - sent.reported.len() as u64;
        if more > 0 {
            session
                .output
                .note(&format!("and {} more", counted(more, "line")));
        }
        outcome?;
        Ok(match sent.invalid {
            0 => Exit::Done,
            _ => Exit::Partial,
        })
    }

    fn summary(&self, messages: u64, took: Duration) -> String {
        let messages_sent = counted(messages, "message");
        let queue = &self.queue;
        let seconds = took.as_secs_f64();
        if seconds < 1.0 {
            return format!("sent {messages_sent} to queue `{queue}`");
        }
        let rate = grouped(messages * 1_000 / (took.as_millis() as u64).max(1));
        format!("sent {messages_sent} to queue `{queue}` in {seconds:.1} s, {rate} a second")
    }

    async fn send(
        &self,
        target: &mut Target,
        sent: &mut Sent,
        progress: &ProgressBar,
    ) -> Result<()> {
        let mut input = lines::read(io::stdin(), sent.line);
        let mut interrupted = pin!(signal::ctrl_c());
        loop {
            let batch = tokio::select! {
                biased;
                _ = &mut interrupted => {
                    return Err(self.ended(Exit::Interrupted, "interrupted", sent));
                }
                batch = input.recv() => batch,
            };
            match batch {
                None => return Ok(()),
                Some(Err(problem)) => return Err(self.ended(Exit::Failed, &problem, sent)),
                Some(Ok(batch)) => {
                    self.store(target, batch.lines, sent).await?;
                    progress.set_position(batch.position);
                    progress.set_message(grouped(sent.messages));
                }
            }
        }
    }

    async fn store(&self, target: &mut Target, lines: Vec<Line>, sent: &mut Sent) -> Result<()> {
        let mut pending = Pending::default();
        for line in lines {
            match line.payload {
                Ok(payload) => {
                    pending.payloads.push(payload);
                    pending.numbers.push(line.number);
                }
                Err(problem) if self.stream.skip_invalid => sent.leave_out(line.number, problem),
                Err(problem) => {
                    self.store_valid(target, pending, sent).await?;
                    return Err(self.invalid(line.number, &problem, sent));
                }
            }
        }
        self.store_valid(target, pending, sent).await
    }

    /// Stores messages that are JSON. Of these, the store refuses some, such as those that are nested too deeply.
    async fn store_valid(
        &self,
        target: &mut Target,
        mut pending: Pending,
        sent: &mut Sent,
    ) -> Result<()> {
        let mut refused = None;
        while !pending.payloads.is_empty() {
            match self.enqueue(target, &pending.payloads).await {
                Ok(ids) => {
                    sent.add(&ids, &pending);
                    break;
                }
                Err(
                    error @ (Error::PayloadTooLarge { index, .. }
                    | Error::PayloadTooDeep { index, .. }
                    | Error::Serialize { index, .. }),
                ) => {
                    let problem = format!("is refused: {}", explain(&error));
                    let number = pending.numbers.remove(index);
                    pending.payloads.remove(index);
                    if self.stream.skip_invalid {
                        sent.leave_out(number, problem);
                    } else {
                        // Those before it are stored all the same.
                        pending.numbers.truncate(index);
                        pending.payloads.truncate(index);
                        refused = Some((number, problem));
                    }
                }
                Err(error) => return Err(self.failed(&error, &pending, sent)),
            }
        }
        match refused {
            Some((number, problem)) => Err(self.invalid(number, &problem, sent)),
            None => Ok(()),
        }
    }

    async fn enqueue(
        &self,
        target: &mut Target,
        payloads: &[Box<RawValue>],
    ) -> pgqrs::Result<Enqueued> {
        let options = &self.options;
        let mut send = pgqrs::enqueue()
            .messages(payloads)
            .to(&self.queue)
            .when(options.when())
            .priority(options.priority())
            .headers(options.header.clone());
        if let Some(attempts) = options.max_attempts {
            send = send.max_attempts(attempts);
        }
        if let Some(time) = options.expires_in {
            send = send.expires_in(time);
        }
        if options.drop_if_expired {
            send = send.drop_if_expired();
        }
        match target {
            Target::Store(store) => send.execute(&*store).await,
            Target::Transaction(transaction) => send.execute(&mut **transaction).await,
        }
    }

    fn invalid(&self, number: u64, problem: &str, sent: &Sent) -> Failure {
        let before = Sent {
            messages: sent.messages,
            line: number - 1,
            ..Sent::default()
        };
        let exit = self.partial_or(Exit::Failed, sent);
        self.ended(exit, &format!("line {number} {problem}"), &before)
    }

    fn failed(&self, error: &Error, pending: &Pending, sent: &Sent) -> Failure {
        let exit = match exit_of(error) {
            Exit::Uncertain => Exit::Uncertain,
            exit => self.partial_or(exit, sent),
        };
        let mut what = explain(error);
        if let (Exit::Uncertain, false, Some(first), Some(last)) = (
            exit,
            self.stream.atomic,
            pending.numbers.first(),
            pending.numbers.last(),
        ) {
            what = format!("lines {first} to {last} may be stored, or not: {what}");
        }
        self.ended(exit, &what, sent)
    }

    fn partial_or(&self, exit: Exit, sent: &Sent) -> Exit {
        if self.stream.atomic || sent.messages == 0 {
            exit
        } else {
            Exit::Partial
        }
    }

    /// Why it has ended early, and how to continue.
    fn ended(&self, exit: Exit, why: &str, sent: &Sent) -> Failure {
        let how = if self.stream.atomic {
            "nothing is stored".to_owned()
        } else if sent.line == 0 {
            "no line before it is stored".to_owned()
        } else {
            format!(
                "all before it is stored: to continue, pass `--skip-lines {}`",
                sent.line
            )
        };
        Failure::new(exit, format!("{why}; {how}"))
    }
}

/// On a terminal, a bar of the bytes read of a file, or a count of messages of a pipe.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match input_size() {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:30} {percent}% of {total_bytes}, {msg} messages, {eta} left",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {msg} messages in {elapsed}",
        ),
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_message("0");
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// The size of the file that standard input is, if it is one.
fn input_size() -> Option<u64> {
    let input = io::stdin().as_fd().try_clone_to_owned().ok()?;
    let about = File::from(input).metadata().ok()?;
    about.is_file().then_some(about.len())
}
