//! A TCP proxy in front of PostgreSQL. It notes what clients send, and its connections can be slow, be cut, fall silent,
//! lose answers, or lead to another server.

mod faults;
mod frontend;

use std::{
    future::pending,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use self::{faults::Faults, frontend::Frames};

use super::url;

pub(crate) use self::{faults::Fault, frontend::Sent};

#[derive(Clone)]
pub(crate) struct Proxy(Arc<Listener>);

struct Listener {
    port: u16,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    host: String,
    /// The server's port, for new connections.
    server: AtomicU16,
    /// The mode of new connections.
    mode: Mutex<Mode>,
    connections: Mutex<Vec<(Arc<Mutex<Mode>>, AbortHandle)>>,
    /// Number of open connections.
    live: AtomicUsize,
    bytes_per_second: AtomicU32,
    bytes_per_connection: AtomicUsize,
    /// When a slow link is free again.
    free_at: tokio::sync::Mutex<Instant>,
    cuts: AtomicUsize,
    largest: AtomicUsize,
    sent: Mutex<Vec<Sent>>,
    faults: Faults,
}

/// What a connection does with the bytes that it reads.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    /// The server's answers are lost.
    Swallow,
    /// Nothing passes in either direction, and the connection stays open, as if a network drops packets.
    Stall,
    /// The server's answers are no longer read, so that it can't send any more.
    Hold,
}

impl Proxy {
    pub(crate) async fn start(host: &str, port: u16) -> io::Result<Self> {
        Self::with_seed(host, port, 0).await
    }

    /// A proxy whose random faults are drawn from this seed.
    pub(crate) async fn with_seed(host: &str, port: u16, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let own = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            host: host.to_owned(),
            server: AtomicU16::new(port),
            mode: Mutex::new(Mode::Pass),
            connections: Mutex::default(),
            live: AtomicUsize::new(0),
            bytes_per_second: AtomicU32::new(u32::MAX),
            bytes_per_connection: AtomicUsize::new(usize::MAX),
            free_at: tokio::sync::Mutex::new(Instant::now()),
            cuts: AtomicUsize::new(0),
            largest: AtomicUsize::new(0),
            sent: Mutex::default(),
            faults: Faults::new(seed),
        });
        let task = tokio::spawn(Arc::clone(&shared).listen(listener));
        Ok(Self(Arc::new(Listener {
            port: own,
            shared,
            task: task.abort_handle(),
        })))
    }

    /// A proxy in front of a test's own database, and the URL that leads through it.
    pub(crate) async fn before(
        pool: &PgPool,
    ) -> Result<(Self, String), Box<dyn std::error::Error>> {
        let options = pool.connect_options();
        let proxy = Self::start(options.get_host(), options.get_port()).await?;
        let mut url: url::Url = url(pool).parse()?;
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(proxy.port()))
            .map_err(|()| "a URL with a port")?;
        Ok((proxy, url.into()))
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }

    /// Number of open connections.
    pub(crate) fn live(&self) -> usize {
        self.shared().live.load(Ordering::SeqCst)
    }

    /// Returns what clients have sent since the last call.
    pub(crate) fn take_sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.shared().sent.lock().expect("not poisoned"))
    }

    /// Size in bytes of the largest message that a client has begun to send.
    pub(crate) fn largest(&self) -> usize {
        self.shared().largest.load(Ordering::SeqCst)
    }

    /// Breaks all connections; new ones lead to another server, and pass.
    pub(crate) fn fail_over(&self, port: u16) {
        self.shared().server.store(port, Ordering::SeqCst);
        self.shared().set_mode_of_new(Mode::Pass);
        self.shared().abort_all();
    }

    /// Open connections pass nothing any more; new ones pass.
    pub(crate) fn stall(&self) {
        self.shared().set_mode_of_open(Mode::Stall);
    }

    /// On open connections the server's answers are no longer read; new ones pass.
    pub(crate) fn hold(&self) {
        self.shared().set_mode_of_open(Mode::Hold);
    }

    /// All connections, new ones too, lose the server's answers.
    pub(crate) fn swallow(&self) {
        self.shared().set_mode_of_new(Mode::Swallow);
        self.shared().set_mode_of_open(Mode::Swallow);
    }

    /// All connections share this rate for the server's answers.
    pub(crate) fn slow(&self, bytes_per_second: u32) {
        let limit = &self.shared().bytes_per_second;
        limit.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Cuts a connection when it has passed this number of bytes, in both directions together.
    pub(crate) fn cut_after(&self, bytes: usize) {
        let limit = &self.shared().bytes_per_connection;
        limit.store(bytes, Ordering::SeqCst);
    }

    /// Number of connections that were cut by [`cut_after`](Self::cut_after).
    pub(crate) fn cuts(&self) -> usize {
        self.shared().cuts.load(Ordering::SeqCst)
    }

    /// Starts random faults; or ends them, and cuts connections that a fault has stalled.
    pub(crate) fn arm(&self, armed: bool) {
        self.shared().faults.arm(armed);
    }

    /// Orders a fault for the connection whose client sends next, after this number of bytes.
    pub(crate) fn order(&self, fault: Fault, bytes: usize) {
        self.shared().faults.order(fault, bytes);
    }

    /// Cancels an ordered fault that has not happened.
    pub(crate) fn cancel_order(&self) {
        self.shared().faults.cancel_order();
    }

    /// Number of faults that have happened.
    pub(crate) fn faults(&self) -> usize {
        self.shared().faults.happened()
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

/// A stalled connection has no end of its own, so it is closed here: otherwise its session would stay.
impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.abort_all();
    }
}

impl Shared {
    async fn listen(self: Arc<Self>, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            let port = self.server.load(Ordering::SeqCst);
            let mode = Arc::new(Mutex::new(*self.mode.lock().expect("not poisoned")));
            let connection = tokio::spawn({
                let (shared, mode) = (Arc::clone(&self), Arc::clone(&mode));
                async move {
                    // If the server refuses, the client's connection is closed too.
                    let server = connect(&shared.host, port).await?;
                    let _open = Open::new(&shared.live);
                    shared.pass(client, server, &mode).await
                }
            });
            let mut connections = self.connections.lock().expect("not poisoned");
            connections.retain(|(_, task)| !task.is_finished());
            connections.push((mode, connection.abort_handle()));
        }
    }

    fn set_mode_of_new(&self, mode: Mode) {
        *self.mode.lock().expect("not poisoned") = mode;
    }

    fn set_mode_of_open(&self, to: Mode) {
        let connections = self.connections.lock().expect("not poisoned");
        for (mode, _) in connections.iter() {
            *mode.lock().expect("not poisoned") = to;
        }
    }

    fn abort_all(&self) {
        let mut connections = self.connections.lock().expect("not poisoned");
        connections.drain(..).for_each(|(_, task)| task.abort());
    }

    async fn pass(
        &self,
        mut client: TcpStream,
        mut server: TcpStream,
        mode: &Mutex<Mode>,
    ) -> io::Result<()> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut request, mut answer) = (vec![0; 16 << 10], vec![0; 16 << 10]);
        let (mut frames, mut fault) = (Frames::default(), self.faults.draw());
        let (mut passed, mut is_held) = (0, false);
        loop {
            let (from_client, read) = tokio::select! {
                read = client.read(&mut request) => (true, read?),
                read = server.read(&mut answer), if !is_held => (false, read?),
            };
            let mode = *mode.lock().expect("not poisoned");
            match mode {
                // The end of a connection doesn't pass either.
                Mode::Stall => return pending().await,
                Mode::Hold if !from_client => {
                    is_held = true;
                    continue;
                }
                _ if read == 0 && is_held => {
                    server.shutdown().await?;
                    return pending().await;
                }
                _ if read == 0 => return Ok(()),
                Mode::Swallow if !from_client => continue,
                _ => {}
            }
            if from_client {
                self.note(&mut frames, &request[..read]);
            } else {
                self.wait_for_turn(read).await;
            }
            let limit = self.bytes_per_connection.load(Ordering::SeqCst);
            let strikes_at = fault.strikes_at(&self.faults, from_client, read);
            let passing = strikes_at.unwrap_or_else(|| read.min(limit.saturating_sub(passed)));
            passed += passing;
            if from_client {
                server.write_all(&request[..passing]).await?;
            } else {
                client.write_all(&answer[..passing]).await?;
            }
            if strikes_at.is_some() {
                match fault.kind() {
                    Fault::CutRequest | Fault::CutAnswer => return Ok(()),
                    Fault::SwallowAnswer => {
                        // Long enough for the server to do what was requested.
                        let _ = timeout(Duration::from_millis(20), discard(&mut server)).await;
                        return Ok(());
                    }
                    Fault::Stall => {
                        tokio::select! {
                            () = discard(&mut client) => {}
                            () = self.faults.disarmed() => {}
                        }
                        return Ok(());
                    }
                    Fault::Delay => {
                        sleep(Duration::from_millis(50)).await;
                        if from_client {
                            server.write_all(&request[passing..read]).await?;
                        } else {
                            client.write_all(&answer[passing..read]).await?;
                        }
                        fault = self.faults.draw();
                    }
                }
            } else if passed >= limit {
                self.cuts.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
        }
    }

    fn note(&self, frames: &mut Frames, bytes: &[u8]) {
        let mut sent = self.sent.lock().expect("not poisoned");
        frames.read(bytes, |message, length| {
            sent.extend(message);
            self.largest.fetch_max(length, Ordering::SeqCst);
        });
    }

    /// Waits until these bytes have had their time on a slow link.
    async fn wait_for_turn(&self, bytes: usize) {
        let bytes_per_second = self.bytes_per_second.load(Ordering::SeqCst);
        if bytes_per_second == u32::MAX {
            return;
        }
        let passed = {
            let mut free_at = self.free_at.lock().await;
            let took = Duration::from_secs(1) * u32::try_from(bytes).expect("a buffer's")
                / bytes_per_second;
            *free_at = (*free_at).max(Instant::now()) + took;
            *free_at
        };
        sleep_until(passed).await;
    }
}

/// Counts a connection while it is open.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn new(live: &'a AtomicUsize) -> Self {
        live.fetch_add(1, Ordering::SeqCst);
        Self(live)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// With a small receive buffer, so that an answer that isn't read has not left the server.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut addresses = lookup_host((host, port)).await?;
    let address = addresses.next().ok_or(io::ErrorKind::NotFound)?;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_recv_buffer_size(64 << 10)?;
    socket.connect(address).await
}

/// Reads until the end, and passes nothing on.
async fn discard(stream: &mut TcpStream) {
    let mut discarded = [0; 4096];
    while matches!(stream.read(&mut discarded).await, Ok(1..)) {}
}
