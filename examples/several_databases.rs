//! Queues over several databases: a message goes to the database that its key decides, and consumers take from all.
//!
//! `DATABASE_URLS='postgresql://… postgresql://…' cargo run --example several_databases`. This example stops when all
//! of its messages were handled.

use std::{env, error::Error};

use pgqrs::{ConnectOptions, Delivery, Queue, Store};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::JoinSet};

#[derive(Debug, Serialize, Deserialize)]
struct Invoice {
    tenant: String,
}

const INVOICES: Queue<Invoice> = Queue::new("invoices");

/// One of the databases. Its name decides which keys are there, so it stays the same if the server moves.
struct Place {
    name: String,
    store: Store,
}

/// Where the messages of a key are: the place whose name has the highest hash with the key. If a place is added, only the
/// keys move that it gets, one of n; if one is removed, only its keys move.
fn place_of<'a>(places: &'a [Place], key: &str) -> Option<&'a Place> {
    places.iter().max_by_key(|place| hash(&place.name, key))
}

/// The same in each process and version, which `std::hash` doesn't promise: FNV-1a, and the last step of MurmurHash3.
fn hash(place: &str, key: &str) -> u64 {
    let bytes = place.bytes().chain([0xff]).chain(key.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let urls = env::var("DATABASE_URLS")?;
    let mut places = Vec::new();
    for (n, url) in urls.split_whitespace().enumerate() {
        let options = ConnectOptions::builder().url(url).install(true);
        let store = pgqrs::connect_with(options.build()).await?;
        store.queue(INVOICES).await?;
        let name = format!("place {n}");
        places.push(Place { name, store });
    }

    for n in 1..=9 {
        let tenant = format!("tenant {n}");
        let place = place_of(&places, &tenant).ok_or("there is no database")?;
        // A transaction of this store could change the tenant's rows too, since they are in the same database.
        let enqueue = pgqrs::enqueue().message(&Invoice { tenant }).to(INVOICES);
        enqueue.execute(&place.store).await?;
    }

    // A consumer for each place, by itself: a database that is away holds up only what is there.
    let (handled, mut all) = mpsc::channel(1);
    let mut consumers = JoinSet::new();
    let mut handles = Vec::new();
    for place in &places {
        let consumer = pgqrs::consumer(INVOICES).create(&place.store).await?;
        handles.push(consumer.handle());
        let (handled, name) = (handled.clone(), place.name.clone());
        let run = consumer.run(move |delivery: Delivery<Invoice>| {
            let (handled, name) = (handled.clone(), name.clone());
            async move {
                let tenant = &delivery.payload().tenant;
                handled.send(format!("{tenant} in {name}")).await
            }
        });
        consumers.spawn(run);
    }
    for _ in 1..=9 {
        println!("{}", all.recv().await.ok_or("the consumers have ended")?);
    }
    for handle in &handles {
        handle.stop();
    }
    while let Some(report) = consumers.join_next().await {
        report??;
    }
    Ok(())
}

// Output, in any order:
// tenant 1 in place 2
// tenant 2 in place 0
// tenant 3 in place 1
// tenant 4 in place 2
// tenant 5 in place 0
// tenant 6 in place 1
// tenant 7 in place 0
// tenant 8 in place 2
// tenant 9 in place 1
