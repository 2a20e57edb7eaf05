//! What a process does that is measured with telemetry or without: the same source is built into both.

use std::{
    env, io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use pgqrs::{ConnectOptions, Delivery, Outcome as Handled, Store};
use serde_json::Value;
use tokio::sync::Notify;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Does what each line on standard input asks for, such as `send 50`, and prints how many nanoseconds it took.
pub(crate) async fn serve() -> Outcome {
    let url = env::var("DATABASE_URL")?;
    let options = ConnectOptions::builder().url(url).max_connections(16);
    let store = pgqrs::connect_with(options.build()).await?;
    println!("ready");
    // It blocks only while nothing else is to be done.
    for line in io::stdin().lines() {
        let line = line?;
        let (work, messages) = line.split_once(' ').ok_or("a number of messages")?;
        let messages: usize = messages.parse()?;
        let started = Instant::now();
        match work {
            "send" => send(&store, messages).await?,
            "drain" => drain(&store, "drain", messages).await?,
            unknown => return Err(format!("{unknown} is unknown").into()),
        }
        println!("{}", started.elapsed().as_nanos());
    }
    Ok(())
}

async fn send(store: &Store, messages: usize) -> Outcome {
    let payload = "x".repeat(198);
    for _ in 0..messages {
        let enqueue = pgqrs::enqueue().message(&payload).to("sends");
        enqueue.execute(store).await?;
    }
    Ok(())
}

/// Runs a consumer of the queue, whose handler does nothing, until it has handled all messages.
pub(crate) async fn drain(store: &Store, queue: &str, messages: usize) -> Outcome {
    let consumer = pgqrs::consumer(queue).create(store).await?;
    let (handled, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let run = consumer.run({
        let all = Arc::clone(&all);
        move |delivery: Delivery<Value>| {
            let last = handled.fetch_add(1, Ordering::Relaxed) + 1 == messages;
            if last {
                all.notify_one();
            }
            async move {
                drop(delivery);
                Handled::Done
            }
        }
    });
    let report = run
        .with_graceful_shutdown(async move { all.notified().await })
        .await?;
    if report.done != messages as u64 {
        return Err(format!("{report:?}").into());
    }
    Ok(())
}
