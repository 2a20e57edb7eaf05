//! A TCP proxy in front of PostgreSQL that breaks what goes through it: cuts connections at any byte in
//! either direction, swallows answers, delays, and stalls without a word. What it does is drawn from a seed, or
//! ordered for whoever speaks next.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::sleep,
};

/// What is to happen to a connection, after so many bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// Of what the client sends, these bytes are the last to arrive.
    CutRequest,
    /// Of what the server says, these bytes are the last to arrive.
    CutAnswer,
    /// What the server says after these bytes is lost, but it goes on with its work for a while.
    SwallowAnswer,
    /// Nothing goes either way any more, and nobody says so.
    Stall,
    /// It only takes longer.
    Delay,
}

#[derive(Clone)]
pub(crate) struct Faults {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    random: Mutex<StdRng>,
    armed: AtomicBool,
    done: AtomicUsize,
    /// Connections that are there.
    live: AtomicUsize,
    /// What is to happen to whoever speaks next; and how often there was peace, which ends what was ordered.
    order: Mutex<(Option<(Fault, usize)>, u64)>,
    /// One in so many faults is a stall, which takes longest to be found.
    stalls: u32,
    ended: Notify,
}

impl Faults {
    pub(crate) async fn start(host: &str, port: u16, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let faults = Self {
            port: listener.local_addr()?.port(),
            shared: Arc::new(Shared {
                random: Mutex::new(StdRng::seed_from_u64(seed)),
                armed: AtomicBool::new(false),
                done: AtomicUsize::new(0),
                live: AtomicUsize::new(0),
                order: Mutex::default(),
                stalls: 40,
                ended: Notify::new(),
            }),
        };
        let (shared, host) = (Arc::clone(&faults.shared), host.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, host) = (Arc::clone(&shared), host.clone());
                tokio::spawn(async move {
                    // A server that is away refuses: so do we.
                    if let Ok(server) = TcpStream::connect((host.as_str(), port)).await {
                        shared.live.fetch_add(1, Ordering::SeqCst);
                        pass(client, server, &shared).await;
                        shared.live.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Ok(faults)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on connections break; or no more of them do, and those that stall are cut.
    pub(crate) fn arm(&self, armed: bool) {
        self.shared.armed.store(armed, Ordering::SeqCst);
        self.shared.ended.notify_waiters();
    }

    /// This happens to the connection whose client speaks next, after so many bytes.
    pub(crate) fn order(&self, fault: Fault, bytes: usize) {
        self.shared.order().0 = Some((fault, bytes));
    }

    /// What was ordered and hasn't happened won't.
    pub(crate) fn peace(&self) {
        let mut order = self.shared.order();
        *order = (None, order.1 + 1);
    }

    /// How many connections there are.
    pub(crate) fn live(&self) -> usize {
        self.shared.live.load(Ordering::SeqCst)
    }

    pub(crate) fn done(&self) -> usize {
        self.shared.done.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// What will happen next on a connection, and after how many bytes.
    fn draw(&self) -> (Fault, usize) {
        let mut random = self.random.lock().expect("no panic while it is held");
        let fault = match random.random_range(0..self.stalls) {
            0 => Fault::Stall,
            n => [
                Fault::CutRequest,
                Fault::CutAnswer,
                Fault::SwallowAnswer,
                Fault::SwallowAnswer,
                Fault::Delay,
            ][n as usize % 5],
        };
        // Small ones meet the login, large ones some statement in the middle of its life.
        (fault, 1 << random.random_range(6..15_u32))
    }

    fn order(&self) -> MutexGuard<'_, (Option<(Fault, usize)>, u64)> {
        self.order.lock().expect("no panic while it is held")
    }

    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst)
    }

    fn count(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, shared: &Shared) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut request, mut answer) = ([0; 4096], [0; 4096]);
    let (mut fault, mut left) = shared.draw();
    // Since which peace there is an order for this connection.
    let mut ordered = None;
    loop {
        let (from_client, read) = tokio::select! {
            read = client.read(&mut request) => (true, read),
            read = server.read(&mut answer) => (false, read),
        };
        let Ok(read @ 1..) = read else {
            return;
        };
        let peace = {
            let mut order = shared.order();
            if from_client && let Some(ours) = order.0.take() {
                ((fault, left), ordered) = (ours, Some(order.1));
            }
            order.1
        };
        let counts = match fault {
            Fault::CutRequest => from_client,
            Fault::CutAnswer | Fault::SwallowAnswer => !from_client,
            Fault::Stall | Fault::Delay => true,
        };
        let (mut until, mut strikes) = (read, counts && left < read);
        strikes &= shared.is_armed() || ordered == Some(peace);
        if strikes {
            until = left;
        } else if counts {
            left = left.saturating_sub(read);
        }
        let passed = if from_client {
            server.write_all(&request[..until]).await
        } else {
            client.write_all(&answer[..until]).await
        };
        if passed.is_err() {
            return;
        }
        if !strikes {
            continue;
        }
        shared.count();
        match fault {
            Fault::CutRequest | Fault::CutAnswer => return,
            Fault::SwallowAnswer => {
                // For long enough that what was asked for is done.
                let discard = async {
                    let mut discarded = [0; 4096];
                    while matches!(server.read(&mut discarded).await, Ok(1..)) {}
                };
                let _ = tokio::time::timeout(Duration::from_millis(20), discard).await;
                return;
            }
            Fault::Stall => {
                // Until the client gives up, or there is to be peace.
                let patient = async {
                    let mut ignored = [0; 4096];
                    while matches!(client.read(&mut ignored).await, Ok(1..)) {}
                };
                tokio::select! {
                    () = patient => {}
                    () = shared.ended.notified() => {}
                }
                return;
            }
            Fault::Delay => {
                sleep(Duration::from_millis(50)).await;
                let rest = if from_client {
                    server.write_all(&request[until..read]).await
                } else {
                    client.write_all(&answer[until..read]).await
                };
                if rest.is_err() {
                    return;
                }
                ((fault, left), ordered) = (shared.draw(), None);
            }
        }
    }
}
