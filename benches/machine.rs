//! The machine on which the figures were measured. Shared with `benches/peers`.

use std::{env, fs, time::Instant};

use sqlx::Row as _;

use crate::{
    Outcome,
    figures::Samples,
    meter::Meter,
    report::{Report, figure},
};

/// The machine on which the figures were measured, and what a commit costs there.
pub(crate) async fn report(meter: &mut Meter, quick: bool) -> Outcome<Report> {
    let mut report = Report::new("machine", quick);
    let facts = &mut report.facts;
    let mut fact = |what: &str, is: String| facts.push((what.to_owned(), is));
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let model =
        field("/proc/cpuinfo", "model name").unwrap_or_else(|| env::consts::ARCH.to_owned());
    fact(
        "processors",
        format!("{processors} of {model}, for the server and its clients"),
    );
    if let Some(memory) = field("/proc/meminfo", "MemTotal") {
        fact("memory", memory);
    }
    // Figures of a machine under other load are unreliable, and the report has to say so.
    if let Ok(load) = fs::read_to_string("/proc/loadavg") {
        let minute = load.split(' ').next().unwrap_or_default();
        fact("load before the run, of the last minute", minute.to_owned());
    }
    let version = sqlx::query("select split_part(version(), ' on ', 1), current_date::text")
        .fetch_one(meter.pool())
        .await?;
    fact("server", version.get(0));
    fact("measured on", version.get(1));
    let settings = sqlx::query(
        "select string_agg(name || ' = ' || current_setting(name), ', ' order by place)
         from unnest(array['fsync', 'synchronous_commit', 'wal_sync_method', 'full_page_writes',
             'shared_buffers', 'max_wal_size', 'checkpoint_timeout']) with ordinality as s (name, place)",
    )
    .fetch_one(meter.pool())
    .await?;
    fact("settings", settings.get(0));
    let calls = if quick { 200 } else { 2_000 };
    let [waiting, not] = commits(meter, calls).await?;
    let wait = waiting.quantile(0.5).unwrap_or_default();
    meter.commit = wait.saturating_sub(not.quantile(0.5).unwrap_or_default());
    let milliseconds = |samples: &Samples, q| {
        let time = samples.quantile(q).unwrap_or_default();
        figure(time.as_secs_f64() * 1e3)
    };
    fact(
        "an insert of one row into a bare table",
        format!(
            "p50 {} ms, p99 {} ms; without waiting for the disk p50 {} ms, p99 {} ms",
            milliseconds(&waiting, 0.5),
            milliseconds(&waiting, 0.99),
            milliseconds(&not, 0.5),
            milliseconds(&not, 0.99),
        ),
    );
    for (what, is) in &report.facts {
        println!("{what}: {is}");
    }
    println!();
    Ok(report)
}

async fn commits(meter: &Meter, calls: usize) -> Outcome<[Samples; 2]> {
    let mut connection = meter.pool().acquire().await?;
    sqlx::raw_sql("drop table if exists commits; create table commits (n int)")
        .execute(&mut *connection)
        .await?;
    let mut samples: [Samples; 2] = Default::default();
    for (samples, mode) in samples.iter_mut().zip([
        "set synchronous_commit = on",
        "set synchronous_commit = off",
    ]) {
        sqlx::query(mode).execute(&mut *connection).await?;
        for _ in 0..calls {
            let started = Instant::now();
            sqlx::query("insert into commits values (1)")
                .execute(&mut *connection)
                .await?;
            samples.push(started.elapsed());
        }
    }
    sqlx::raw_sql("drop table commits; reset synchronous_commit")
        .execute(&mut *connection)
        .await?;
    Ok(samples)
}
