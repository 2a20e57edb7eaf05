//! What settings of a server, other servers and their slots do to its health: on servers of the test's own.

use pgqrs::{FindingKind, HorizonSource, Severity};
use sqlx::{Connection, PgConnection};

use super::{horizon, none, one, snapshot};
use crate::support::{TestResult, server::Server, until};

#[tokio::test]
async fn a_prepared_transaction_a_slot_and_a_standby_are_found() -> TestResult {
    let primary = Server::create().await?;
    primary.set("max_prepared_transactions=5".to_owned());
    primary.set("wal_level=logical".to_owned());
    primary.up()?;
    let store = pgqrs::connect(&primary.url()).await?;
    let admin = pgqrs::admin(&store);
    admin.install().await?;
    store.queue("tasks").await?;
    let pool = store.pool();
    let sources = async || {
        let health = admin.health().await?;
        let holders = horizon(&health).holders.clone().into_iter();
        Ok::<_, pgqrs::Error>(holders.map(|holder| (holder.source, holder.only_catalogs)))
    };

    sqlx::raw_sql("begin; update pgqrs.queues set max_attempts = 7; prepare transaction 'order 7'")
        .execute(pool)
        .await?;
    let found: Vec<_> = sources().await?.collect();
    assert!(
        matches!(&found[..], [(HorizonSource::PreparedTransaction { gid, role }, false)]
            if gid == "order 7" && role == "postgres"),
        "{found:?}"
    );
    let age = horizon(&admin.health().await?).holders[0].held_for;
    assert!(age.is_some(), "its time is known");
    sqlx::raw_sql("rollback prepared 'order 7'")
        .execute(pool)
        .await?;

    sqlx::raw_sql("select pg_create_logical_replication_slot('changes', 'pgoutput')")
        .execute(pool)
        .await?;
    let found: Vec<_> = sources().await?.collect();
    assert!(
        matches!(&found[..], [(HorizonSource::ReplicationSlot { name, active_pid: None }, true)]
            if name == "changes"),
        "{found:?}"
    );
    assert_eq!(
        horizon(&admin.health().await?).transactions(),
        0,
        "only catalogs"
    );
    sqlx::raw_sql(
        "select pg_drop_replication_slot('changes');
         select pg_create_physical_replication_slot('replica')",
    )
    .execute(pool)
    .await?;

    pool.close().await;
    primary.down("fast")?;
    let standby = primary.copied_standby()?;
    standby.set("max_prepared_transactions=5".to_owned());
    standby.set("hot_standby_feedback=on".to_owned());
    standby.set("wal_receiver_status_interval=1s".to_owned());
    standby.set(format!(
        "primary_conninfo='host=127.0.0.1 port={} user=postgres application_name=replica'",
        primary.port()
    ));
    primary.up()?;
    standby.up()?;
    let store = pgqrs::connect(&primary.url()).await?;
    let admin = pgqrs::admin(&store);
    let (_report, _) = snapshot(&standby.url(), "select count(*) from pgqrs.messages").await?;
    until("the standby reports its snapshot", async || {
        let health = admin.health().await.expect("read");
        let mut holders = horizon(&health).holders.iter();
        holders.any(|holder| {
            matches!(&holder.source, HorizonSource::Standby { application, .. } if application == "replica")
        })
    })
    .await;

    standby.set("primary_slot_name=replica".to_owned());
    standby.restart("fast").await?;
    let (_report, _) = snapshot(&standby.url(), "select count(*) from pgqrs.messages").await?;
    until("its slot has the snapshot", async || {
        let health = admin.health().await.expect("read");
        let mut holders = horizon(&health).holders.iter();
        holders.any(|holder| {
            matches!(&holder.source, HorizonSource::ReplicationSlot { name, active_pid: Some(_) } if name == "replica")
                && !holder.only_catalogs
        })
    })
    .await;
    // Its standby is gone, and the slot still holds back vacuum.
    standby.down("fast")?;
    until("the slot is not in use", async || {
        let health = admin.health().await.expect("read");
        let mut holders = horizon(&health).holders.iter();
        holders.any(|holder| {
            matches!(&holder.source, HorizonSource::ReplicationSlot { name, active_pid: None } if name == "replica")
        })
    })
    .await;
    store.pool().close().await;
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_short_of_connections_or_runs_no_autovacuum_is_found() -> TestResult {
    let server = Server::create().await?;
    server.set("max_connections=13".to_owned());
    server.set("superuser_reserved_connections=3".to_owned());
    server.set("autovacuum=off".to_owned());
    server.up()?;
    let store = pgqrs::connect(&server.url()).await?;
    let admin = pgqrs::admin(&store);
    let health = admin.health().await?;
    assert_eq!(health.connections.expect("visible").limit, 10);
    none(&health, "connections_short");
    let off = one(&health, "autovacuum_off");
    assert_eq!(off.kind, FindingKind::AutovacuumOff { table: None });
    assert!(!health.autovacuum);

    let mut others = Vec::new();
    for (used, severity) in [(8, Severity::Warning), (10, Severity::Critical)] {
        while admin.health().await?.connections.expect("visible").used < used {
            others.push(PgConnection::connect(&server.url()).await?);
        }
        let health = admin.health().await?;
        let short = one(&health, "connections_short");
        assert_eq!(short.severity, severity, "{health}");
        let text = short.to_string();
        assert_eq!(text, format!("{used} of 10 connections are in use"));
    }
    store.pool().close().await;
    Ok(())
}
