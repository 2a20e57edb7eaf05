//! `web`.

use std::{process::Stdio, time::Duration};

use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use crate::support::{TestResult, pgqrs, run, tasks, url};

const LONG: Duration = Duration::from_secs(30);

/// A page that is served.
struct Served {
    child: Child,
    address: String,
    password: String,
}

impl Served {
    async fn start(pool: &PgPool, arguments: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        let mut command = pgqrs(&[&["web", "--json"], arguments].concat());
        command
            .env("DATABASE_URL", url(pool))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = timeout(LONG, lines.next_line()).await??;
        let said: serde_json::Value = serde_json::from_str(&line.expect("it says where it is"))?;
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let address = text("url")
            .replace("http://", "")
            .replace("0.0.0.0", "127.0.0.1");
        Ok(Self {
            child,
            address: address.trim_end_matches('/').to_owned(),
            password: text("password"),
        })
    }

    /// The whole answer to a request, with these lines in its head.
    async fn ask(&self, request: &str, head: &[&str], body: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let head: String = head.iter().map(|line| format!("{line}\r\n")).collect();
        let length = body.len();
        let request = format!(
            "{request} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// The status, and whether the answer has anything of the page.
    async fn status(&self, head: &[&str]) -> std::io::Result<(u16, bool)> {
        let answer = self.ask("GET /", head, "").await?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.unwrap_or(0), answer.contains("tasks")))
    }

    /// Ends it, as Ctrl-C does. Returns what it has said.
    async fn stop(self) -> Result<String, Box<dyn std::error::Error>> {
        let id = self.child.id().expect("it runs").to_string();
        let kill = Command::new("kill").args(["-INT", &id]).status();
        assert!(kill.await?.success());
        let ended = timeout(LONG, self.child.wait_with_output()).await??;
        assert_eq!(ended.status.code(), Some(0));
        Ok(String::from_utf8(ended.stderr)?)
    }
}

/// A line of a request's head.
fn login(user: &str, password: &str) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};

    let both = BASE64_STANDARD.encode(format!("{user}:{password}"));
    format!("authorization: Basic {both}")
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_page_is_served_to_this_machine_alone(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let page = Served::start(&pool, &["--listen", "127.0.0.1:0"]).await?;
    assert_eq!(page.password, "");
    let here = format!("host: {}", page.address);
    assert_eq!(page.status(&[&here]).await?, (200, true));
    let elsewhere = ["host: attacker.example.com"];
    assert_eq!(page.status(&elsewhere).await?, (421, false));
    let form = page
        .ask("GET /act/pause-queue?queue=tasks", &[&here], "")
        .await?;
    assert!(form.starts_with("HTTP/1.1 404"), "it only reads: {form}");
    assert_eq!(page.stop().await?, "");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn other_machines_need_the_password_that_it_prints(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let page = Served::start(&pool, &["--listen", "0.0.0.0:0"]).await?;
    assert_eq!(page.password.len(), 32);
    let host = "host: pgqrs.example.com";
    for wrong in ["", "wrong"] {
        let wrong = login("ada", wrong);
        assert_eq!(page.status(&[host, &wrong]).await?, (401, false));
    }
    let nobody = page.ask("GET /api/v1/queues", &[host], "").await?;
    assert!(nobody.contains("www-authenticate: Basic"), "{nobody}");
    let right = login("ada", &page.password);
    assert_eq!(page.status(&[host, &right]).await?, (200, true));
    page.stop().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_proxy_says_who_has_logged_in(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    let proxied = ["--listen", "0.0.0.0:0", "--user-header", "X-User"];
    let page = Served::start(&pool, &proxied).await?;
    let host = "host: pgqrs.example.com";
    assert_eq!(page.status(&[host]).await?, (403, false));
    let both = [host, "x-user: root", "x-user: ada"];
    assert_eq!(page.status(&both).await?, (403, false));
    assert_eq!(page.status(&[host, "x-user: ada"]).await?, (200, true));
    let said = page.stop().await?;
    assert!(said.contains("without the proxy"), "{said}");
    let two = ["web", "--password", "--user-header", "x-user"];
    run(&pool, &two).await.fails(2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn actions_need_a_login_and_are_printed_with_who_and_why(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let page = Served::start(&pool, &["--listen", "127.0.0.1:0", "--actions"]).await?;
    let host = format!("host: {}", page.address);
    assert_eq!(page.status(&[&host]).await?, (401, false));
    let login = login("ada", &page.password);
    let path = "/act/pause-queue?queue=tasks";
    let form = page
        .ask(&format!("GET {path}"), &[&host, &login], "")
        .await?;
    let between = |from: &str, to: &str| -> String {
        let rest = form.split(from).nth(1).unwrap_or_default();
        rest.split(to).next().unwrap_or_default().to_owned()
    };
    let cookie = format!("cookie: {}", between("set-cookie: ", ";"));
    let token = between("name=\"token\" value=\"", "\"");
    let body = format!("queue=tasks&why=a%20test%1b%5B2J&token={token}");
    let kind = "content-type: application/x-www-form-urlencoded";
    let post = "POST /act/pause-queue";
    let nobody = page.ask(post, &[&host, &cookie, kind], &body).await?;
    assert!(nobody.starts_with("HTTP/1.1 401"), "{nobody}");
    let done = page
        .ask(post, &[&host, &login, &cookie, kind], &body)
        .await?;
    assert!(done.starts_with("HTTP/1.1 303"), "{done}");
    assert!(pgqrs::admin(&store).queue("tasks").await?.is_paused);
    let said = page.stop().await?;
    assert!(
        said.contains("ada: pause-queue, queue tasks: begins"),
        "{said}"
    );
    assert!(
        said.contains("pause-queue, queue tasks: It is paused (why: a test"),
        "{said}"
    );
    assert!(!said.contains('\u{1b}'), "{said}");
    Ok(())
}
