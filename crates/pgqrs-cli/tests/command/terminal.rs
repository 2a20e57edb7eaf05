//! The command in a terminal: a pseudo-terminal, whose output a terminal emulator shows.

use std::{
    io::{Read, Write},
    num::NonZero,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use portable_pty::{Child, CommandBuilder, PtySize, native_pty_system};
use sqlx::PgPool;
use vt100::Parser;

use crate::support::url;

/// A program that runs in a terminal.
pub(crate) struct Terminal {
    shown: Arc<Mutex<Shown>>,
    input: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    /// Closed when this is dropped.
    _pty: Box<dyn portable_pty::MasterPty + Send>,
}

fn size_of(side: u16) -> NonZero<u16> {
    NonZero::new(side).expect("a terminal has cells")
}

struct Shown {
    screen: Parser,
    /// Everything that was written, with control sequences.
    written: Vec<u8>,
}

impl Terminal {
    /// Runs the command on a test's database.
    pub(crate) fn run(pool: &PgPool, columns: u16, rows: u16, arguments: &[&str]) -> Self {
        Self::program(pool, columns, rows, env!("CARGO_BIN_EXE_pgqrs"), arguments)
    }

    pub(crate) fn program(
        pool: &PgPool,
        columns: u16,
        rows: u16,
        program: &str,
        arguments: &[&str],
    ) -> Self {
        let size = PtySize {
            rows,
            cols: columns,
            pixel_width: 0,
            pixel_height: 0,
        };
        let pty = native_pty_system()
            .openpty(size)
            .expect("a pseudo-terminal");
        let mut command = CommandBuilder::new(program);
        command.args(arguments);
        command.env("DATABASE_URL", url(pool));
        command.env("TERM", "xterm-256color");
        let child = pty.slave.spawn_command(command).expect("it was built");
        drop(pty.slave);
        let mut output = pty.master.try_clone_reader().expect("it can be read");
        let input = pty.master.take_writer().expect("it can be written to");
        let shown = Arc::new(Mutex::new(Shown {
            screen: Parser::new(size_of(rows), size_of(columns), 0),
            written: Vec::new(),
        }));
        let reader = Arc::clone(&shown);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                let mut shown = reader.lock().expect("nobody panics with it");
                shown.screen.process(&buffer[..read]);
                shown.written.extend_from_slice(&buffer[..read]);
            }
        });
        Self {
            shown,
            input,
            child,
            _pty: pty.master,
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().expect("nobody panics with it")
    }

    /// The screen's text.
    pub(crate) fn screen(&self) -> String {
        self.shown().screen.screen().contents()
    }

    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.shown().written).into_owned()
    }

    /// Waits until the screen is as it should be; returns it.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let give_up_at = Instant::now() + Duration::from_secs(30);
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            assert!(Instant::now() < give_up_at, "never came: {what}\n{screen}");
            tick.tick().await;
        }
    }

    pub(crate) async fn until_shown(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text)).await
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.input.write_all(keys.as_bytes()).expect("it reads");
        self.input.flush().expect("it reads");
    }

    /// Waits for its end; returns its code.
    pub(crate) async fn code(&mut self) -> u32 {
        let give_up_at = Instant::now() + Duration::from_secs(30);
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status.exit_code();
            }
            assert!(
                Instant::now() < give_up_at,
                "it never ended\n{}",
                self.screen()
            );
            tick.tick().await;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, unless the test fails.
        let _ = self.child.kill();
    }
}
