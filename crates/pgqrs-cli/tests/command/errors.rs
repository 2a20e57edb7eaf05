//! What is said when something is wrong, and the code that it exits with.

use sqlx::PgPool;

use crate::support::{TestResult, pgqrs, run, tasks, url};

async fn run_at(url: &str, arguments: &[&str]) -> crate::support::Run {
    let output = pgqrs(arguments).env("DATABASE_URL", url).output().await;
    output.expect("the command was built").into()
}

#[tokio::test]
async fn without_a_database_it_says_how_to_name_one() {
    let output = pgqrs(&["queues"]).output().await.expect("it was built");
    let error = crate::support::Run::from(output).fails(2);
    assert!(error.contains("DATABASE_URL"), "{error}");
    assert!(error.contains("--database-url"), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_has_a_code_of_its_own() {
    // Nothing listens on the port of a socket that is closed again.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let port = port.expect("a port is free").port();
    let url = format!("postgresql://u:secret@127.0.0.1:{port}/db");
    let error = run_at(&url, &["queues"]).await.fails(4);
    assert!(
        error.contains("check the URL, and that the server runs"),
        "{error}"
    );
    assert!(!error.contains("secret"), "{error}");
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_refused_login_is_explained_without_the_password(pool: PgPool) -> TestResult {
    let url = url(&pool);
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (_, host) = rest.rsplit_once('@').expect("a user");
    let wrong = format!("{scheme}://nobody-of-that-name:hunter2@{host}");
    let error = run_at(&wrong, &["queues"]).await.fails(4);
    assert!(error.contains("nobody-of-that-name"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    Ok(())
}

#[tokio::test]
async fn no_password_of_a_url_is_printed_wherever_it_was_written() {
    let url = "postgresql://u:hunter2@localhost:5432/db";
    for arguments in [
        &[url][..],
        &["queues", url],
        &[
            "--database-url",
            "postgresql://u:hunter2@localhost:notaport/db",
            "queues",
        ],
        &["--database-url", "u:hunter2@localhost/db", "queues"],
        &["--help"],
        &[
            "queue",
            "show",
            url,
            "--database-url",
            "postgresql://u:hunter2@127.0.0.1:1/db",
        ],
    ] {
        let mut command = pgqrs(arguments);
        let output = command.env("DATABASE_URL", url).output().await;
        let run = crate::support::Run::from(output.expect("it was built"));
        assert!(
            !format!("{run:?}").contains("hunter2"),
            "{arguments:?}: {run:?}"
        );
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_does_not_exist_has_a_code_of_its_own_and_a_hint(pool: PgPool) -> TestResult {
    for arguments in [
        &["queue", "show", "nope"][..],
        &["queue", "pause", "nope"],
        &["queue", "purge", "nope", "--yes"],
        &["send", "nope", "1"],
        &["send", "nope", "-"],
        &["dead", "retry", "nope", "--all"],
        &["cancel", "nope", "1", "--yes"],
        &["queue", "delete", "nope", "--yes"],
    ] {
        let error = run(&pool, arguments).await.fails(3);
        assert!(
            error.contains("`pgqrs queue create nope` creates it"),
            "{arguments:?}: {error}"
        );
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_error_is_json_too_if_that_was_asked_for(pool: PgPool) -> TestResult {
    let failed = run(&pool, &["queue", "show", "nope", "--json"]).await;
    assert_eq!(failed.out, "");
    let error: serde_json::Value = serde_json::from_str(&failed.fails(3))?;
    assert_eq!(error["exit_code"], 3);
    assert!(
        error["error"]
            .as_str()
            .is_some_and(|text| text.contains("`nope`")),
        "{error}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_url_can_name_several_hosts(pool: PgPool) -> TestResult {
    let url = crate::support::url(&pool);
    let (login, rest) = url.split_once('@').ok_or("a URL with a login")?;
    // Nothing listens at port 1.
    let several = format!("{login}@127.0.0.1:1,{rest}");
    run_at(&several, &["verify"]).await.done();
    let refused = run_at(
        &format!("{several}&target_session_attrs=standby"),
        &["verify"],
    )
    .await;
    let refused = refused.fails(4);
    assert!(
        refused.contains("must be `read-write` or `primary`"),
        "{refused}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_missing_privilege_is_named_with_the_command_that_prints_the_grants(
    pool: PgPool,
) -> TestResult {
    tasks(&pool).await?;
    let role = format!("clerk_{}", std::process::id());
    let statement = format!("create role {role} login password 'x'");
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(&pool)
        .await?;
    let options = pool.connect_options().as_ref().clone();
    let of_role = sqlx::ConnectOptions::to_url_lossy(&options.username(&role).password("x"));
    let refused = run_at(of_role.as_str(), &["queues"]).await;

    // The statements that it names suffice.
    let grants = pgqrs(&["grants", "--operator", &role]).output().await?;
    let grants = crate::support::Run::from(grants).done();
    sqlx::raw_sql(sqlx::AssertSqlSafe(grants))
        .execute(&pool)
        .await?;
    let granted = run_at(of_role.as_str(), &["queues"]).await;

    let drop = format!("drop owned by {role}; drop role {role}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop))
        .execute(&pool)
        .await?;
    let refused = refused.fails(1);
    assert!(
        refused.contains(&format!("`pgqrs grants --operator {role}`")),
        "{refused}"
    );
    granted.done();
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_reader_that_has_seen_enough_is_no_error(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    for n in 0..200 {
        store.queue(format!("queue-with-a-long-name-{n}")).await?;
    }
    let program = env!("CARGO_BIN_EXE_pgqrs");
    let shell = format!("{{ {{ '{program}' queues; echo \"code $?\" >&2; }} | head -n 1; }} 2>&1");
    let output = tokio::process::Command::new("sh")
        .args(["-c", &shell])
        .env("DATABASE_URL", url(&pool))
        .output()
        .await?;
    let printed = String::from_utf8(output.stdout)?;
    assert!(printed.contains("QUEUE"), "{printed}");
    assert!(printed.contains("code 0"), "{printed}");
    assert!(!printed.contains("error"), "{printed}");
    Ok(())
}
