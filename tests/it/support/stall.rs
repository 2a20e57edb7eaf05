//! A TCP proxy in front of PostgreSQL that falls silent when it is told to: nobody learns of it, as where a
//! network drops packets. Or that leads to another server from now on, as an address does after a fail-over.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU16, Ordering},
    },
};

use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream, lookup_host,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{AbortHandle, JoinHandle},
};

use super::url;

/// What the server says is lost. (0 is that all passes.)
const SWALLOW: u8 = 1;
/// Nothing goes either way any more.
const STALL: u8 = 2;
/// What the server says isn't fetched any more.
const HOLD: u8 = 3;

pub(crate) struct Stall {
    port: u16,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// Of connections that are still to come.
    next: AtomicU8,
    /// Where they lead.
    server: AtomicU16,
    live: Mutex<Vec<(Arc<AtomicU8>, [AbortHandle; 2])>>,
}

impl Stall {
    pub(crate) async fn start(host: &str, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let own = listener.local_addr()?.port();
        let shared = Arc::<Shared>::default();
        shared.server.store(port, Ordering::SeqCst);
        let (of_proxy, host) = (Arc::clone(&shared), host.to_owned());
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let port = of_proxy.server.load(Ordering::SeqCst);
                let Ok(server) = connect(&host, port).await else {
                    continue;
                };
                let mode = Arc::new(AtomicU8::new(of_proxy.next.load(Ordering::SeqCst)));
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let there = tokio::spawn(pass(from_client, to_server, Arc::clone(&mode), false));
                let back = tokio::spawn(pass(from_server, to_client, Arc::clone(&mode), true));
                let tasks = [there.abort_handle(), back.abort_handle()];
                of_proxy
                    .live
                    .lock()
                    .expect("no panic while it is held")
                    .push((mode, tasks));
            }
        });
        Ok(Self {
            port: own,
            shared,
            listening,
        })
    }

    /// In front of a test's own database; and the URL that leads through it.
    pub(crate) async fn before(
        pool: &PgPool,
    ) -> Result<(Self, String), Box<dyn std::error::Error>> {
        let options = pool.connect_options();
        let proxy = Self::start(options.get_host(), options.get_port()).await?;
        let mut url: url::Url = url(pool).parse()?;
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(proxy.port))
            .map_err(|()| "a URL with a port")?;
        Ok((proxy, url.into()))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connections that are there break; new ones lead to another server, and pass.
    pub(crate) fn fail_over(&self, port: u16) {
        self.shared.server.store(port, Ordering::SeqCst);
        self.shared.next.store(0, Ordering::SeqCst);
        let mut live = self.shared.live.lock().expect("no panic while it is held");
        for (_, tasks) in live.drain(..) {
            tasks.iter().for_each(AbortHandle::abort);
        }
    }

    fn switch_live(&self, to: u8) {
        let live = self.shared.live.lock().expect("no panic while it is held");
        live.iter()
            .for_each(|(mode, _)| mode.store(to, Ordering::SeqCst));
    }

    /// Connections that are there fall silent; new ones pass.
    pub(crate) fn stall(&self) {
        self.switch_live(STALL);
    }

    /// Connections that are there don't take what the server says: soon it can't say any more.
    pub(crate) fn hold(&self) {
        self.switch_live(HOLD);
    }

    /// All connections, those to come too, lose what the server says.
    pub(crate) fn swallow(&self) {
        self.shared.next.store(SWALLOW, Ordering::SeqCst);
        self.switch_live(SWALLOW);
    }
}

/// With room for little: what isn't fetched from it has not left the server.
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

/// Silence has no end, so the server's sessions have to be ended by hand.
impl Drop for Stall {
    fn drop(&mut self) {
        self.listening.abort();
        let live = self.shared.live.lock().expect("no panic while it is held");
        live.iter()
            .flat_map(|(_, tasks)| tasks)
            .for_each(AbortHandle::abort);
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mode: Arc<AtomicU8>,
    is_answer: bool,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut bytes).await?;
        match mode.load(Ordering::SeqCst) {
            // An end isn't told of either.
            STALL => std::future::pending::<()>().await,
            _ if count == 0 => return to.shutdown().await,
            HOLD if is_answer => std::future::pending::<()>().await,
            SWALLOW if is_answer => {}
            _ => to.write_all(&bytes[..count]).await?,
        }
    }
}
