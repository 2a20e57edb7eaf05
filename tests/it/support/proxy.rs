//! A TCP proxy in front of PostgreSQL that notes what clients send: what the server sees, and not what
//! the client believes it sends.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A message of the frontend. See "Message Formats" in PostgreSQL's manual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Start-up, authentication, end of a session.
    Session,
    Parse,
    Describe,
    Bind,
    Execute,
    Close,
    Sync,
    Flush,
    /// The simple protocol: statements as one text.
    Query,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Proxy {
    port: u16,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Proxy {
    pub(crate) async fn start(host: &str, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let proxy = Self {
            port: listener.local_addr()?.port(),
            sent: Arc::default(),
        };
        let (sent, host) = (Arc::clone(&proxy.sent), host.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect((host.as_str(), port)).await else {
                    continue;
                };
                let (from_client, mut to_client) = client.into_split();
                let (mut from_server, to_server) = server.into_split();
                tokio::spawn(
                    async move { tokio::io::copy(&mut from_server, &mut to_client).await },
                );
                tokio::spawn(note(from_client, to_server, Arc::clone(&sent)));
            }
        });
        Ok(proxy)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What was sent since the last call.
    pub(crate) fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut self.sent.lock().expect("no panic while it is held"))
    }
}

async fn note(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    sent: Arc<Mutex<Vec<Sent>>>,
) -> io::Result<()> {
    // A start-up message has no type; there may be a request for TLS ahead of it.
    const TLS_REQUEST: u32 = 80_877_103;
    loop {
        let length = client.read_u32().await?;
        let code = client.read_u32().await?;
        let mut rest = vec![0; length as usize - 8];
        client.read_exact(&mut rest).await?;
        server.write_u32(length).await?;
        server.write_u32(code).await?;
        server.write_all(&rest).await?;
        if code != TLS_REQUEST {
            break;
        }
    }
    loop {
        let kind = client.read_u8().await?;
        let length = client.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).await?;
        let message = match kind {
            b'P' => Sent::Parse,
            b'D' => Sent::Describe,
            b'B' => Sent::Bind,
            b'E' => Sent::Execute,
            b'C' => Sent::Close,
            b'S' => Sent::Sync,
            b'H' => Sent::Flush,
            b'Q' => Sent::Query,
            _ => Sent::Session,
        };
        sent.lock()
            .expect("no panic while it is held")
            .push(message);
        server.write_u8(kind).await?;
        server.write_u32(length).await?;
        server.write_all(&body).await?;
    }
}
