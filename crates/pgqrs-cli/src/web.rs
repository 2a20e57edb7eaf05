//! `web`: the operators' page, for this machine alone. It only reads.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header::HOST, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use clap::Args;
use pgqrs::Store;
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    exit::Exit,
    failure::{Failure, Result},
    session::{Session, place},
};

/// The page has no login, so it is served to this machine alone. For others, mount the crate `pgqrs-web` in a service
/// behind a login. It only reads, and shows payloads.
#[derive(Args)]
pub(crate) struct Web {
    /// The address to listen on, of this machine alone; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000", value_parser = loopback)]
    listen: SocketAddr,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "write an address with a port, such as 127.0.0.1:3000".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the page has no login, so it listens on 127.0.0.1 or [::1] only; for others, mount the crate `pgqrs-web` behind a login".to_owned())
    }
}

impl Web {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let store = session.store().await?;
        // If the database isn't what the page needs, this says so.
        pgqrs::admin(&store).queues().await?;
        let page = Served::bind(self.listen).await.map_err(|error| {
            let address = self.listen;
            Failure::new(
                Exit::Failed,
                format!("can't listen on {address}: {error}; `--listen` takes another address"),
            )
        })?;
        // From here on, before it says where it is.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        session.output.print(&json!({"url": page.url}), || {
            format!("{} shows {}; Ctrl-C ends it", page.url, place(&store))
        })?;
        tokio::select! {
            served = page.serve(&store) => served?,
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

    /// On a free port.
    pub(crate) async fn anywhere() -> io::Result<Self> {
        Self::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    pub(crate) async fn serve(self, store: &Store) -> io::Result<()> {
        let page: Router = pgqrs_web::router(store);
        axum::serve(
            self.listener,
            page.layer(middleware::from_fn(of_this_machine)),
        )
        .await
    }
}

/// Refuses requests for another host: a page of somebody else could reach this one under its own name, which it has let
/// point to this machine.
async fn of_this_machine(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let host: Option<Authority> = host.and_then(|host| host.parse().ok());
    let is_ours = host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    });
    if is_ours {
        next.run(request).await
    } else {
        (
            StatusCode::MISDIRECTED_REQUEST,
            "this page is for its own machine alone\n",
        )
            .into_response()
    }
}
