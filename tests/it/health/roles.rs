//! What a role without privileges gets of the health, and which grants it is pointed to.

use pgqrs::{Access, FindingKind, HealthPart, HorizonHolder, HorizonSource, Severity};
use sqlx::PgPool;

use super::{horizon, is_session, none, one, snapshot};
use crate::{
    grants::{as_role, run},
    support::{TestResult, send, url, with_queues},
};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_role_that_may_not_see_sessions_gets_the_rest_and_the_grant_that_it_lacks(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (_session, pid) = snapshot(&url(&pool), "select 'hidden'").await?;
    as_role(&pool, Some(Access::Operator), async |store, role| {
        let admin = pgqrs::admin(store);
        let seen = async || {
            let health = admin.health().await?;
            let holders = horizon(&health).holders.clone().into_iter();
            let holder = holders.into_iter().find(|holder| is_session(holder, pid));
            Ok::<_, pgqrs::Error>((health, holder.expect("its pid is visible")))
        };
        let (health, holder) = seen().await?;
        assert!(
            matches!(&holder, HorizonHolder { source: HorizonSource::Session { state: None, query: None, .. }, held_for: None, .. }),
            "{holder:?}"
        );
        assert!(!health.to_string().contains("hidden"), "{health}");
        let finding = one(&health, "not_visible");
        assert_eq!(finding.severity, Severity::Info);
        let grant = format!("grant pg_read_all_stats to \"{role}\"");
        assert!(finding.remedy.contains(&grant), "{}", finding.remedy);
        assert_eq!(health.queues.len(), 1, "{health}");
        assert!(health.schema.is_some());
        assert!(health.connections.expect("visible").used >= 2, "{health}");

        run(&pool, grant).await?;
        let (health, holder) = seen().await?;
        none(&health, "not_visible");
        assert!(holder.held_for.is_some());
        assert!(
            matches!(&holder.source, HorizonSource::Session { query: Some(query), .. } if query == "select 'hidden'"),
            "{holder:?}"
        );
        Ok(())
    })
    .await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_role_that_may_not_read_the_queues_gets_what_the_server_says(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    as_role(&pool, None, async |store, role| {
        let health = pgqrs::admin(store).health().await?;
        let missing: Vec<_> = health
            .findings
            .iter()
            .filter_map(|finding| match &finding.kind {
                FindingKind::NotVisible { what, reason: None } => Some(*what),
                _ => None,
            })
            .collect();
        assert_eq!(
            missing,
            [
                HealthPart::SessionDetails,
                HealthPart::Schema,
                HealthPart::Queues,
                HealthPart::Workers
            ]
        );
        assert_eq!(missing.len(), health.findings.len(), "{health}");
        let remedy = &health.findings[2].remedy;
        assert!(
            remedy.contains(&format!("grants --operator {role}")),
            "{remedy}"
        );
        assert_eq!(health.schema, None);
        assert!(!health.tables.is_empty());
        Ok(())
    })
    .await
}

/// Administrators who harden a server may revoke what every role can read by default.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_role_that_may_not_list_the_sessions_gets_the_rest(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let hidden = "pg_stat_activity, pg_replication_slots";
    run(&pool, format!("revoke select on {hidden} from public")).await?;
    as_role(&pool, Some(Access::Operator), async |store, role| {
        let admin = pgqrs::admin(store);
        let health = admin.health().await?;
        assert_eq!((&health.horizon, health.connections), (&None, None));
        assert_eq!(health.queues.len(), 1, "{health}");
        assert!(!health.tables.is_empty() && health.schema.is_some());
        let kind = FindingKind::NotVisible {
            what: HealthPart::Sessions,
            reason: None,
        };
        let finding = health.findings.iter().find(|finding| finding.kind == kind);
        let remedy = &finding.ok_or("it is a finding")?.remedy;
        assert!(
            remedy.contains("grant select on pg_stat_activity"),
            "{remedy}"
        );
        let mut observer = store.observe(std::time::Duration::from_secs(60)).await?;
        let seen = observer.changed().await?;
        assert_eq!((seen.queues.len(), &seen.horizon), (1, &None));

        // What the remedy says, with the role's own name.
        let grant = remedy.split('`').nth(1).ok_or("a statement")?;
        assert!(grant.ends_with(&format!("to \"{role}\"")), "{grant}");
        run(&pool, grant.to_owned()).await?;
        let health = admin.health().await?;
        assert!(
            health.horizon.is_some() && health.connections.is_some(),
            "{health}"
        );
        Ok(())
    })
    .await
}
