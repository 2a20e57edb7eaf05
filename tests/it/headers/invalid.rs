//! Headers that are refused, and the largest that aren't.

use std::collections::BTreeMap;

use pgqrs::{Error, Store};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::support::{TestResult, claim, with_queues};

/// Nothing listens there, so whatever is refused otherwise was refused before anything was sent.
fn unreachable_store() -> Result<Store, sqlx::Error> {
    let pool = PgPoolOptions::new().connect_lazy("postgresql://localhost:1/nowhere")?;
    Ok(Store::from(pool))
}

#[tokio::test]
async fn an_invalid_header_is_refused_by_its_name_before_anything_is_sent() -> TestResult {
    let store = unreachable_store()?;
    let long = "n".repeat(65);
    let names = [
        "",
        "Tenant",
        "a b",
        "a\n",
        "a\0",
        "a:b",
        "ä",
        "pgqrs-group",
        "pgqrs-",
        &long,
    ];
    for name in names {
        let enqueue = || pgqrs::enqueue().message(&1).to("tasks").header(name, "");
        let on_store = enqueue().execute(&store).await;
        let on_pool = enqueue().execute(store.pool()).await;
        let import = pgqrs::enqueue().to("tasks").header(name, "");
        let imported = import.import([1]).next(&store).await;
        let refusals = [
            on_store.unwrap_err(),
            on_pool.unwrap_err(),
            imported.unwrap_err(),
            enqueue().statement().unwrap_err(),
        ];
        for refused in refusals {
            assert!(
                matches!(&refused, Error::InvalidHeader(invalid) if invalid.name() == name),
                "{name:?}: {refused:?}"
            );
            assert!(!refused.is_retryable() && !refused.aborted_transaction());
        }
    }
    for value in ["\0", "a\0b"] {
        let enqueue = pgqrs::enqueue().message(&1).to("tasks").header("a", value);
        let refused = enqueue.execute(&store).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidHeader(_)), "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_refused_before_anything_is_sent() -> TestResult {
    let store = unreachable_store()?;
    let refused = async |headers: Vec<(String, String)>| {
        let enqueue = pgqrs::enqueue().message(&1).to("tasks").headers(headers);
        match enqueue.execute(&store).await.unwrap_err() {
            Error::InvalidHeader(invalid) => invalid.name().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    let nine_kib = refused(vec![("a".to_owned(), "v".repeat(9 << 10))]).await;
    assert_eq!(nine_kib, "a");
    let longest_name = refused(vec![("n".repeat(9 << 10), String::new())]).await;
    assert_eq!(longest_name.len(), 9 << 10);
    // Of 12 bytes each.
    let thousand = (0..1_000).map(|n| (format!("name{n:04}"), "1234".to_owned()));
    assert_eq!(refused(thousand.collect()).await, "name0682");
    // An endless iterator is not read to its end.
    let endless = pgqrs::enqueue().message(&1).to("tasks");
    let endless = endless.headers((0..).map(|n| (n.to_string(), "v")));
    assert!(matches!(
        endless.execute(&store).await,
        Err(Error::InvalidHeader(_))
    ));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_thousand_small_headers_and_one_of_eight_kib_arrive(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let thousand: BTreeMap<_, _> = (0..1_000).map(|n| (format!("n{n:03}"), "1234")).collect();
    let large = BTreeMap::from([("l".to_owned(), "ä".repeat((8 << 10) / 2 - 1))]);
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .headers(thousand.clone())
        .execute(&store)
        .await?;
    let enqueue = pgqrs::enqueue().messages(&[2, 3]).to("tasks");
    enqueue.headers(&large).execute(&store).await?;
    let deliveries = claim(&store, 3).await?;
    let arrived = deliveries[0].headers().iter();
    assert!(arrived.eq(thousand.iter().map(|(name, value)| (name.as_str(), *value))));
    assert_eq!(deliveries[2].headers().get("l"), Some(large["l"].as_str()));
    Ok(())
}
