//! `web`: the operators' page. By default it only reads, and is for this machine alone.

mod access;
mod log;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::Request,
    http::HeaderName,
    middleware::{self, Next},
};
use clap::Args;
use pgqrs_web::Page;
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use self::access::Access;
use crate::{
    exit::Exit,
    failure::{Failure, Result},
    session::{Session, place},
};

/// It shows payloads, unless their queue is sensitive. On this machine alone, it needs no login. For others, and for
/// actions, it asks for a password, which is printed, or trusts a reverse proxy. It speaks HTTP: what goes over a network
/// needs a proxy with TLS, or a tunnel, since the password could be read on its way.
#[derive(Args)]
pub(crate) struct Web {
    /// The address to listen on; port 0 takes a free one. One that other machines reach needs a login
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Ask for a password, which is made up and printed; without it only if nothing else needs one
    #[arg(long)]
    password: bool,
    /// Admit only requests with this header: a reverse proxy sets it to the name of a user who has logged in, and removes
    /// it from what users send
    #[arg(long, value_name = "HEADER", conflicts_with = "password")]
    user_header: Option<HeaderName>,
    /// Let those who are logged in act too: requeue, cancel, pause, and so on. Each action asks first, and is printed
    /// with who and why. Some need the privileges of the schema's owner
    #[arg(long)]
    actions: bool,
}

impl Web {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let store = session.store().await?;
        // If the database isn't what the page needs, this says so.
        pgqrs::admin(&store).queues().await?;
        let (actions, is_local) = (self.actions, self.listen.ip().is_loopback());
        let access = match self.user_header {
            Some(header) => Access::Header(header),
            None if self.password || actions || !is_local => Access::with_password(),
            None => Access::ThisMachine,
        };
        let access = Arc::new(access);
        let served = Served::bind(self.listen).await.map_err(|error| {
            let address = self.listen;
            Failure::new(
                Exit::Failed,
                format!("can't listen on {address}: {error}; `--listen` takes another address"),
            )
        })?;
        let mut page = pgqrs_web::page(&store);
        if actions {
            log::print_actions(session.output);
            let access = Arc::clone(&access);
            page = page
                .actions(|_, _| true)
                .operator(move |request| access.user(&request.headers).unwrap_or_default());
        }
        // From here on, before it says where it is.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let password = access.password();
        let result = json!({"url": served.url, "password": password});
        session.output.print(&result, || {
            let place = place(&store);
            let mut text = format!("{} shows {place}; Ctrl-C ends it", served.url);
            if let Some(password) = password {
                text += &format!("\nlog in with your name, and the password {password}");
            }
            text
        })?;
        if let (Access::Header(header), false) = (&*access, is_local) {
            session.output.note(&format!(
                "a client that reaches {} without the proxy can be any user, by sending `{header}`",
                self.listen
            ));
        }
        tokio::select! {
            ended = served.serve(page, access) => ended?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(Exit::Done)
    }
}

/// The page, on its way to be served.
pub(crate) struct Served {
    listener: TcpListener,
    pub(crate) url: String,
}

impl Served {
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let url = format!("http://{}/", listener.local_addr()?);
        Ok(Self { listener, url })
    }

    /// On a free port, for this machine alone.
    pub(crate) async fn anywhere() -> io::Result<Self> {
        Self::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Serves a page that only reads, to this machine alone.
    pub(crate) async fn serve_here(self, page: Page) -> io::Result<()> {
        self.serve(page, Arc::new(Access::ThisMachine)).await
    }

    async fn serve(self, page: Page, access: Arc<Access>) -> io::Result<()> {
        let admit = middleware::from_fn(move |request: Request, next: Next| {
            let access = Arc::clone(&access);
            async move {
                match access.refusal(request.headers()) {
                    None => next.run(request).await,
                    Some(refused) => refused,
                }
            }
        });
        axum::serve(self.listener, page.router().layer(admit)).await
    }
}
