//! `web`.

use std::{process::Stdio, time::Duration};

use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::support::{TestResult, pgqrs, run, tasks, url};

/// The whole answer to a request.
async fn get(address: &str, host: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_page_is_served_to_this_machine_alone(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let mut command = pgqrs(&["web", "--listen", "127.0.0.1:0"]);
    command.env("DATABASE_URL", url(&pool));
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let line = timeout(Duration::from_secs(30), lines.next_line()).await??;
    let line = line.expect("it says where it is");
    let (_, rest) = line.split_once("http://").expect("a URL");
    let (address, _) = rest.split_once('/').expect("a path");

    let page = get(address, address).await?;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains("tasks"), "{page}");
    let elsewhere = get(address, "attacker.example.com").await?;
    assert!(elsewhere.starts_with("HTTP/1.1 421"), "{elsewhere}");
    assert!(!elsewhere.contains("tasks"), "{elsewhere}");

    let id = child.id().expect("it runs").to_string();
    let kill = tokio::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(kill.await?.success());
    let ended = timeout(Duration::from_secs(30), child.wait()).await??;
    assert_eq!(ended.code(), Some(0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn other_machines_need_a_service_with_a_login(pool: PgPool) -> TestResult {
    let refused = run(&pool, &["web", "--listen", "0.0.0.0:3000"])
        .await
        .fails(2);
    assert!(refused.contains("the page has no login"), "{refused}");
    Ok(())
}
