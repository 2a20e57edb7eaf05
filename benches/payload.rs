//! How the size of a payload affects the speed: a batch beside a bare one, and whole life cycles.

use pgqrs::Store;

use crate::{
    Outcome, clear,
    enqueue::{bare_batch, our_batch},
    fresh, lifecycle,
    meter::Meter,
    report::{Rounds, Table},
};

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    for queue in ["sends", "ours", "bare"] {
        store.queue(queue).await?;
    }
    let mut tables = Vec::new();
    for (bytes, size) in [(200, 100), (2_000, 100), (50_000, 20)] {
        let rounds = if quick { 6 } else { 60 };
        let payloads = vec![text(bytes); size];
        tables.push(batch(meter, &store, &payloads, rounds).await?);
        tables.push(life(meter, &store, &payloads[..10], rounds / 2).await?);
    }
    Ok(tables)
}

/// Text that compresses about as well as real text, and not to almost nothing.
fn text(bytes: usize) -> String {
    let mut state = 1_u32;
    let letters = (2..bytes).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b"etaoin shrdlucmf"[(state >> 28) as usize])
    });
    letters.collect()
}

fn size_of(payload: &str) -> String {
    match payload.len() + 2 {
        bytes if bytes < 1_000 => format!("{bytes} B"),
        bytes => format!("{} kB", bytes / 1_000),
    }
}

async fn batch(meter: &Meter, store: &Store, payloads: &[String], rounds: usize) -> Outcome<Table> {
    const BARE: &str = "bare insert of unnest";
    const OURS: &str = "execute(&store)";
    let (size, bytes) = (payloads.len(), size_of(&payloads[0]));
    let mut table = Rounds::new(meter, format!("batches of {size} of {bytes}"), rounds);
    while table.next() {
        bare_batch(&mut table, BARE, store.pool(), payloads).await?;
        our_batch(&mut table, OURS, store, payloads).await?;
    }
    table.at_least(
        0.95,
        OURS,
        BARE,
        format!("batch of {size} of {bytes}, to unnest"),
    );
    clear(store.pool()).await?;
    Ok(table.finish())
}

async fn life(meter: &Meter, store: &Store, payloads: &[String], rounds: usize) -> Outcome<Table> {
    let (size, bytes) = (payloads.len(), size_of(&payloads[0]));
    let title = format!("life cycles of {size} of {bytes} at a time, no backlog");
    let mut table = Rounds::new(meter, title, rounds);
    while table.next() {
        lifecycle::round(&mut table, store, "ours", "bare", payloads).await?;
    }
    let what = format!("life cycle of {size} of {bytes}, to delete-on-claim");
    table.at_least(0.6, lifecycle::OURS, lifecycle::BARE, what);
    clear(store.pool()).await?;
    Ok(table.finish())
}
