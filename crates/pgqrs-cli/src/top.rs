//! `top`: a live view of the queues in the terminal.

mod screen;
mod state;

use std::{
    io::{IsTerminal, stdin, stdout},
    thread,
    time::Duration,
};

use clap::Args;
use pgqrs::{Admin, WorkerFilter};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use self::state::{Detail, Sample, State};
use crate::{
    exit::Exit,
    failure::{Failure, Result, explain},
    session::{Session, place},
    times::duration,
};

/// Keys: arrows or j and k select a queue, s changes the order, p or space pauses the view, q or Esc ends it.
#[derive(Args)]
pub(crate) struct Top {
    /// How often to look
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    interval: Duration,
}

impl Top {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        if !(stdout().is_terminal() && stdin().is_terminal()) {
            return Err(Failure::usage(
                "`top` needs a terminal; `pgqrs queues` prints the same once",
            ));
        }
        let store = session.store().await?;
        let admin = pgqrs::admin(&store);
        let mut state = State::new(place(&store));
        // Before the screen is taken: an error is then printed as any other one.
        state.show(Sample::read(&admin).await?);
        let mut terminal = ratatui::try_init()?;
        let ended = self.watch(&admin, &mut state, &mut terminal).await;
        ratatui::restore();
        ended.map(|()| Exit::Done)
    }

    async fn watch(
        &self,
        admin: &Admin,
        state: &mut State,
        terminal: &mut ratatui::DefaultTerminal,
    ) -> Result<()> {
        let mut keys = keys();
        let mut ticks = interval(self.interval.max(Duration::from_millis(100)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            terminal.draw(|frame| screen::draw(frame, state))?;
            tokio::select! {
                key = keys.recv() => match key {
                    Some(Event::Key(key)) if ends(key) => return Ok(()),
                    Some(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                        let before = state.selected().cloned();
                        press(key.code, state);
                        if state.selected() != before.as_ref() {
                            state.forget_detail();
                            refresh_detail(admin, state).await;
                        }
                    }
                    Some(_) => {}
                    None => return Ok(()),
                },
                _ = ticks.tick(), if !state.is_paused() => refresh(admin, state).await,
            }
        }
    }
}

async fn refresh(admin: &Admin, state: &mut State) {
    if state.wants_rates()
        && let Ok(health) = admin.health().await
    {
        state.add(&health);
    }
    match Sample::read(admin).await {
        Ok(sample) => state.show(sample),
        // What was read last stays on the screen.
        Err(error) => return state.fail(explain(&error)),
    }
    refresh_detail(admin, state).await;
}

async fn refresh_detail(admin: &Admin, state: &mut State) {
    let Some(queue) = state.selected().cloned() else {
        return;
    };
    let read = async {
        let filter = WorkerFilter::builder().queue(queue.clone()).build();
        pgqrs::Ok(Detail {
            reasons: admin.dead_letter_reasons(&queue).await?,
            workers: admin.workers(&filter).await?,
        })
    };
    match read.await {
        Ok(detail) => state.show_detail(detail),
        Err(error) => state.fail(explain(&error)),
    }
}

fn ends(key: KeyEvent) -> bool {
    let is_control_c =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    is_control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}

fn press(key: KeyCode, state: &mut State) {
    match key {
        KeyCode::Down | KeyCode::Char('j') => state.select_next(),
        KeyCode::Up | KeyCode::Char('k') => state.select_previous(),
        KeyCode::Char('s') => state.change_order(),
        KeyCode::Char('p' | ' ') => state.toggle_pause(),
        _ => {}
    }
}

/// Reads keys, and changes of the terminal's size, in a thread of its own.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}
