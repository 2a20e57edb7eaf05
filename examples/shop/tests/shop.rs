//! Tests of the web service, of the worker, and of both. They need no server: the first one starts a PostgreSQL, which is
//! gone after the last one.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use pgqrs::{
    Delivery, Outcome, Store,
    testing::{self, assert_enqueued, refute_enqueued},
};
use shop::{
    orders::{self, EMAILS, Email, NewOrder, PAYMENTS},
    web, worker,
};
use tower::ServiceExt;

type TestResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Keeps what it should send, and fails a few times first.
#[derive(Default)]
struct Outbox {
    sent: Mutex<Vec<Email>>,
    failures: Mutex<u32>,
}

impl worker::Mailer for Outbox {
    fn send(&self, email: &Email) -> Result<(), String> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err("the mailbox is full".to_owned());
        }
        self.sent.lock().unwrap().push(email.clone());
        Ok(())
    }
}

async fn store() -> Result<Store, Box<dyn std::error::Error + Send + Sync>> {
    let store = testing::postgres().await?.store();
    shop::prepare(&store)
        .await
        .map_err(|error| error.to_string())?;
    Ok(store)
}

fn new_order(cents: i64) -> NewOrder {
    NewOrder {
        customer: "ada@example.com".to_owned(),
        cents,
    }
}

/// A handler by itself, without a database.
#[tokio::test]
async fn the_fifth_failure_of_an_email_is_its_last() -> TestResult {
    let outbox = Arc::new(Outbox {
        failures: Mutex::new(2),
        ..Outbox::default()
    });
    let email = Email {
        to: "ada@example.com".to_owned(),
        subject: "Hello".to_owned(),
    };
    let fourth = Delivery::for_test(email.clone()).attempt(4).build()?;
    assert!(matches!(
        worker::notify(outbox.clone(), fourth).await,
        Outcome::RetryIn(..)
    ));
    let fifth = Delivery::for_test(email).attempt(5).build()?;
    assert!(matches!(
        worker::notify(outbox, fifth).await,
        Outcome::DeadLetter(_)
    ));
    Ok(())
}

/// What sends, and the handlers, in a transaction that is rolled back.
#[tokio::test]
async fn an_order_is_paid_and_its_customer_notified() -> TestResult {
    let store = store().await?;
    let mut tx = store.begin().await?;
    let (order, sent) =
        testing::capture(&mut tx, async |tx| orders::place(tx, &new_order(500)).await).await?;
    let order = order?;
    assert_eq!(sent.len(), 1);
    assert_enqueued!(tx, PAYMENTS, |payment| payment.order == order
        && payment.cents == 500);

    testing::drain_in_transaction(&mut tx, PAYMENTS, worker::pay).await?;
    assert_enqueued!(tx, EMAILS, |email| email.to == "ada@example.com");

    // The first attempt fails, and the second one comes a minute later.
    let outbox = Arc::new(Outbox {
        failures: Mutex::new(1),
        ..Outbox::default()
    });
    let notify = |delivery| worker::notify(outbox.clone(), delivery);
    let drained = testing::drain(&mut tx, EMAILS, notify).await?;
    assert_eq!(drained.failed[0].error, "the mailbox is full");
    testing::advance(&mut tx, Duration::from_secs(60)).await?;
    assert_eq!(testing::drain(&mut tx, EMAILS, notify).await?.done.len(), 1);
    assert_eq!(
        outbox.sent.lock().unwrap()[0].subject,
        format!("Order {order} is paid")
    );
    Ok(())
}

/// The web service with a database of its own, in which it commits.
#[tokio::test]
async fn an_order_that_cannot_be_stored_sends_nothing() -> TestResult {
    let store = store().await?;
    let status = post(&store, r#"{"customer": "ada@example.com", "cents": 0}"#).await?;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    refute_enqueued!(&store, PAYMENTS);
    let status = post(&store, r#"{"customer": "ada@example.com", "cents": 500}"#).await?;
    assert_eq!(status, StatusCode::CREATED);
    assert_enqueued!(&store, PAYMENTS);
    Ok(())
}

/// Web service and worker together, as in production.
#[tokio::test]
async fn what_is_ordered_is_paid_and_notified_by_a_running_worker() -> TestResult {
    let store = store().await?;
    let outbox = Arc::new(Outbox::default());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let work = {
        let (store, outbox) = (store.clone(), outbox.clone());
        tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            worker::work(&store, outbox, stopped).await
        })
    };
    for _ in 0..10 {
        post(&store, r#"{"customer": "ada@example.com", "cents": 500}"#).await?;
    }
    testing::wait_until_empty(&store, PAYMENTS, Duration::from_secs(30)).await?;
    testing::wait_until_empty(&store, EMAILS, Duration::from_secs(30)).await?;
    assert_eq!(outbox.sent.lock().unwrap().len(), 10);
    let _ = stop.send(());
    work.await??;
    Ok(())
}

async fn post(
    store: &Store,
    order: &'static str,
) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let request = Request::post("/orders")
        .header("content-type", "application/json")
        .body(Body::from(order))?;
    Ok(web::routes(store.clone()).oneshot(request).await?.status())
}
