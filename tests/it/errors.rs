//! The text of errors, and whether a transaction outlives one.

use pgqrs::{ConnectOptions, Error};
use sqlx::PgPool;

use crate::support::{TestResult, url, with_queues};

/// What `fn main() -> Result<(), Box<dyn Error>>` prints after `Error: `.
fn printed(error: Error) -> String {
    let error: Box<dyn std::error::Error> = error.into();
    format!("{error:?}")
}

#[tokio::test]
async fn the_first_failures_of_a_newcomer_print_what_to_do() {
    let closed = pgqrs::connect("postgresql://localhost:1/mydb").await;
    assert_eq!(
        printed(closed.unwrap_err()),
        "can't connect to PostgreSQL; check the URL, and that the server runs and accepts connections\n\n\
         Caused by:\n    error communicating with database: Connection refused (os error 111)\n    \
         Connection refused (os error 111)"
    );
}

#[sqlx::test(migrations = false)]
async fn a_database_without_the_schema_prints_how_to_install_it(pool: PgPool) -> TestResult {
    let store = pgqrs::connect(&url(&pool)).await?;
    let enqueue = pgqrs::enqueue().message(&1).to("tasks");
    assert_eq!(
        printed(enqueue.execute(&store).await.unwrap_err()),
        "pgqrs is not installed in this database; call `pgqrs::admin(&store).install()`, or connect with \
         `ConnectOptions::builder().install(true)`"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queue_that_does_not_exist_prints_how_to_create_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &[]).await?;
    let error = pgqrs::dequeue()
        .from("taks")
        .execute(&store)
        .await
        .unwrap_err();
    assert_eq!(
        format!("{error:#?}"),
        "QueueNotFound {\n    queue: \"taks\",\n}"
    );
    assert_eq!(
        printed(error),
        "queue `taks` does not exist; create it with `pgqrs::admin(&store).create_queue(\"taks\")`"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_refused_login_prints_what_the_server_said(pool: PgPool) -> TestResult {
    let mut wrong = url::Url::parse(&url(&pool))?;
    wrong
        .set_username("nobody_of_that_name")
        .map_err(|()| "a URL with a host")?;
    let options = ConnectOptions::builder().url(wrong.as_str()).build();
    let printed = printed(pgqrs::connect_with(options).await.unwrap_err());
    assert!(
        printed.starts_with("can't connect to PostgreSQL; "),
        "{printed}"
    );
    assert!(printed.contains("nobody_of_that_name"), "{printed}");
    Ok(())
}

/// Each row of the table of `Error::aborted_transaction`.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_error_says_whether_the_callers_transaction_can_still_be_committed(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    sqlx::raw_sql(
        "create table orders (id integer);
         create function refuse() returns trigger language plpgsql as
             $$ begin raise 'not this one'; end $$;
         create trigger refuse before insert on pgqrs.messages for each row
             when (new.payload::text = '\"refused\"') execute function refuse()",
    )
    .execute(&pool)
    .await?;
    let producer = pgqrs::producer("my-service", 1, "tasks")
        .create(&store)
        .await?;
    producer.suspend().await?;
    for case in ["absent", "suspended", "NaN", "bad name", "refused", "fine"] {
        let mut tx = pool.begin().await?;
        sqlx::query("insert into orders values (1)")
            .execute(&mut *tx)
            .await?;
        let enqueue = pgqrs::enqueue();
        let sent = match case {
            "absent" => enqueue.message(&1).to("taks").execute(&mut tx).await,
            "suspended" => producer.enqueue().message(&1).execute(&mut tx).await,
            "NaN" => {
                enqueue
                    .message(&f64::NAN)
                    .to("tasks")
                    .execute(&mut tx)
                    .await
            }
            "bad name" => enqueue.message(&1).to(" tasks").execute(&mut tx).await,
            "refused" => {
                enqueue
                    .message("refused")
                    .to("tasks")
                    .execute(&mut tx)
                    .await
            }
            _ => enqueue.message("fine").to("tasks").execute(&mut tx).await,
        };
        assert_eq!(sent.is_ok(), case == "fine", "{case}: {sent:?}");
        let is_usable = sqlx::query("insert into orders values (2)")
            .execute(&mut *tx)
            .await
            .is_ok();
        if let Err(error) = sent {
            assert_eq!(error.aborted_transaction(), !is_usable, "{case}: {error}");
            assert_eq!(is_usable, case != "refused", "{case}");
        }
        tx.rollback().await?;
    }
    Ok(())
}
