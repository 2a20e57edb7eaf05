//! A TCP proxy in front of PostgreSQL that is a poor link: slow, or with connections that last for some bytes only.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    time::{Instant, sleep_until},
};

use super::url;

#[derive(Debug, Clone)]
pub(crate) struct Link(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_per_second: AtomicU32,
    bytes_per_connection: AtomicUsize,
    /// When a slow link is free again.
    free_at: Mutex<Instant>,
    cuts: AtomicUsize,
    largest: AtomicUsize,
}

impl Link {
    /// In front of a test's own database; and the URL that leads through it.
    pub(crate) async fn before(
        pool: &PgPool,
    ) -> Result<(Self, String), Box<dyn std::error::Error>> {
        let options = pool.connect_options();
        let (host, port) = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let own = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            bytes_per_second: AtomicU32::new(u32::MAX),
            bytes_per_connection: AtomicUsize::new(usize::MAX),
            free_at: Mutex::new(Instant::now()),
            cuts: AtomicUsize::new(0),
            largest: AtomicUsize::new(0),
        });
        let link = Self(Arc::clone(&shared));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, host) = (Arc::clone(&shared), host.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect((host.as_str(), port)).await?;
                    shared.pass(client, server).await
                });
            }
        });
        let mut url: url::Url = url(pool).parse()?;
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(own)).map_err(|()| "a URL with a port")?;
        Ok((link, url.into()))
    }

    /// All connections share this many bytes a second of what the server answers.
    pub(crate) fn slow(&self, bytes_per_second: u32) {
        let limit = &self.0.bytes_per_second;
        limit.store(bytes_per_second, Ordering::SeqCst);
    }

    /// A connection is cut when this many bytes have passed, in both directions together.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.0.bytes_per_connection.store(bytes, Ordering::SeqCst);
    }

    /// How many connections it has cut.
    pub(crate) fn cuts(&self) -> usize {
        self.0.cuts.load(Ordering::SeqCst)
    }

    /// How many bytes the largest message has that a client has begun to send.
    pub(crate) fn largest(&self) -> usize {
        self.0.largest.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn pass(&self, mut client: TcpStream, mut server: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut request, mut answer) = (vec![0; 4096], vec![0; 16 << 10]);
        let (mut frames, mut passed) = (Frames::default(), 0);
        loop {
            let (from_client, read) = tokio::select! {
                read = client.read(&mut request) => (true, read?),
                read = server.read(&mut answer) => (false, read?),
            };
            if read == 0 {
                return Ok(());
            }
            if from_client {
                frames.read(&request[..read]);
                self.largest.fetch_max(frames.largest, Ordering::SeqCst);
            } else {
                self.turn(read).await;
            }
            let limit = self.bytes_per_connection.load(Ordering::SeqCst);
            let passing = read.min(limit.saturating_sub(passed));
            passed += passing;
            if from_client {
                server.write_all(&request[..passing]).await?;
            } else {
                client.write_all(&answer[..passing]).await?;
            }
            if passed >= limit {
                self.cuts.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
        }
    }

    /// Until these bytes have had their time on a slow link.
    async fn turn(&self, bytes: usize) {
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

/// Where messages begin in what a client sends. See "Message Formats" in PostgreSQL's manual.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    /// What is still to come of the present message.
    body: usize,
    is_started: bool,
    largest: usize,
}

impl Frames {
    fn read(&mut self, mut bytes: &[u8]) {
        const TLS_REQUEST: usize = 8;
        while let Some((first, rest)) = bytes.split_first() {
            if self.body > 0 {
                let passed = self.body.min(bytes.len());
                self.body -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            // The first message has no type; and a request for TLS goes ahead of it.
            let kind = usize::from(self.is_started);
            if let [a, b, c, d] = self.header[kind.min(self.header.len())..] {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                self.body = length.saturating_sub(4);
                self.largest = self.largest.max(length);
                self.is_started |= length != TLS_REQUEST;
                self.header.clear();
            }
        }
    }
}
