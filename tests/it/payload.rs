//! Payloads: what is stored is what was serialised, byte for byte, or a typed error comes before anything
//! is sent.

use pgqrs::{ConnectOptions, Error, Queue};
use serde::{Serialize, Serializer};
use serde_json::{Value, json, value::RawValue};
use sqlx::PgPool;

use crate::support::{TestResult, count, stored, url, with_queues};

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("valid JSON")
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn every_kind_of_value_comes_back_as_it_was_sent(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let values = [
        json!({"object": {"nested": [1, 2.5, {"deep": null}]}}),
        json!([]),
        json!({}),
        json!(null),
        json!(true),
        json!(-1),
        json!("text"),
        json!(u64::MAX),
        json!(i64::MIN),
        json!("\u{0}, \u{1f}, \", \\, \u{7f}, é, ß, 漢字, 👩‍👩‍👧, \u{10ffff}, \u{feff}, \u{202e}"),
        json!({"\u{0}": 1, "ключ": "значение", "": ""}),
    ];
    pgqrs::enqueue()
        .messages(&values)
        .to("tasks")
        .execute(&store)
        .await?;
    for (stored, value) in stored(&pool).await?.iter().zip(&values) {
        assert_eq!(stored.payload, value.to_string());
    }
    let deliveries = pgqrs::dequeue()
        .from("tasks")
        .limit(100)
        .execute(&store)
        .await?;
    assert_eq!(deliveries.len(), values.len());
    for (delivery, value) in deliveries.iter().zip(&values) {
        assert_eq!(delivery.payload()?, value);
        assert_eq!(delivery.raw_payload(), value.to_string());
    }
    Ok(())
}

/// What `jsonb`, or a parse on the way, would change.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn json_that_others_would_rewrite_keeps_every_byte(pool: PgPool) -> TestResult {
    const RAW: Queue<Box<RawValue>> = Queue::new("raw");
    let store = with_queues(&pool, &["raw"]).await?;
    let depth = 127;
    let texts = [
        "18446744073709551617".into(),
        "-0.0".into(),
        "1e400".into(),
        "0.1000000000000000000000000000000001".into(),
        r#"{"a": 1, "a": 2,   "b":[ 1 ,2 ]}"#.into(),
        r#""\u0000""#.into(),
        r#""\ud83d\ude00 \u00e9 \/""#.into(),
        format!("{}{}", "[".repeat(depth), "]".repeat(depth)),
        format!("{:?}", "x".repeat(1 << 20)),
        format!("{:?}", "漢".repeat(1 << 19)),
    ];
    let payloads: Vec<_> = texts.iter().map(|text: &String| raw(text)).collect();
    pgqrs::enqueue()
        .messages(&payloads)
        .to(RAW)
        .execute(&store)
        .await?;
    let deliveries = pgqrs::dequeue()
        .from(RAW)
        .limit(100)
        .execute(&store)
        .await?;
    assert_eq!(deliveries.len(), texts.len());
    for (delivery, text) in deliveries.into_iter().zip(&texts) {
        assert_eq!(delivery.raw_payload(), text);
        assert_eq!(delivery.payload()?.get(), text);
        delivery.ack(&store).await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_lone_surrogate_is_refused_or_kept_but_never_a_raw_sql_error(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for text in [r#""\ud800""#, r#""\udc00 x""#] {
        let Ok(payload) = RawValue::from_string(text.to_owned()) else {
            continue;
        };
        pgqrs::enqueue()
            .message(&payload)
            .to("tasks")
            .execute(&store)
            .await?;
        let deliveries = pgqrs::dequeue().from("tasks").execute(&store).await?;
        assert_eq!(deliveries[0].raw_payload(), text);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn nesting_that_no_consumer_could_read_is_refused(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let deep = raw(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)));
    let refused = pgqrs::enqueue()
        .messages(&[raw("1"), deep])
        .to("tasks")
        .execute(&store)
        .await;
    assert!(
        matches!(refused, Err(Error::PayloadTooDeep { index: 1, .. })),
        "{refused:?}"
    );

    let mut value = json!([]);
    for _ in 0..10_000 {
        value = Value::Array(vec![value]);
    }
    let refused = pgqrs::enqueue()
        .message(&value)
        .to("tasks")
        .execute(&store)
        .await;
    assert!(
        matches!(refused, Err(Error::PayloadTooDeep { index: 0, .. })),
        "{refused:?}"
    );
    // Its own destructor would be too deep for a test's stack.
    while let Value::Array(inner) = value {
        value = inner.into_iter().next().unwrap_or_default();
    }
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

struct Unserialisable;

impl Serialize for Unserialisable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("there are no words for this"))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Mixed {
    Good(u32),
    Bad(Unserialisable),
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn one_that_cant_be_serialised_is_named_and_nothing_of_the_batch_is_stored(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let batch = [
        Mixed::Good(0),
        Mixed::Good(1),
        Mixed::Bad(Unserialisable),
        Mixed::Good(3),
    ];
    let refused = pgqrs::enqueue()
        .messages(&batch)
        .to("tasks")
        .execute(&store)
        .await
        .unwrap_err();
    let Error::Serialize { index, source } = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(*index, 2);
    assert_eq!(source.to_string(), "there are no words for this");
    // Keys that JSON doesn't have.
    let keyed = std::collections::HashMap::from([(vec![1], 1)]);
    let refused = pgqrs::enqueue()
        .message(&keyed)
        .to("tasks")
        .execute(&store)
        .await;
    assert!(
        matches!(refused, Err(Error::Serialize { index: 0, .. })),
        "{refused:?}"
    );
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_size_limit_is_exact(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .payload_limit(100)
        .build();
    let store = pgqrs::connect_with(options).await?;
    // With its two quotation marks.
    let fits = "x".repeat(98);
    let too_large = "x".repeat(99);
    pgqrs::enqueue()
        .message(&fits)
        .to("tasks")
        .execute(&store)
        .await?;
    let refused = pgqrs::enqueue()
        .messages(&[&fits, &too_large])
        .to("tasks")
        .execute(&store)
        .await;
    let Err(Error::PayloadTooLarge {
        index: 1,
        bytes: 101,
        limit: 100,
    }) = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_default_limit_is_64_mib_and_that_much_is_stored(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let limit = 64 << 20;
    let fits = raw(&format!("{:?}", "x".repeat(limit - 2)));
    let too_large = raw(&format!("{:?}", "x".repeat(limit - 1)));
    let ids = pgqrs::enqueue()
        .message(&fits)
        .to("tasks")
        .execute(&store)
        .await?;
    let stored: i32 =
        sqlx::query_scalar("select length(payload::text) from pgqrs.messages where id = $1")
            .bind(ids[0].get())
            .fetch_one(&pool)
            .await?;
    assert_eq!(stored as usize, limit);
    let refused = pgqrs::enqueue()
        .message(&too_large)
        .to("tasks")
        .execute(&pool)
        .await;
    assert!(
        matches!(refused, Err(Error::PayloadTooLarge { .. })),
        "{refused:?}"
    );
    Ok(())
}
