//! The privileges of the stores that tests use: the schema's owner's, or those of a role, if `PGQRS_TEST_ACCESS` is
//! `producer` or `consumer`. What a test itself looks at or changes, it does as the owner.

use std::{env, sync::Arc};

use pgqrs::{Access, Store};
use sqlx::{
    AssertSqlSafe, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

fn wanted() -> Vec<Access> {
    match env::var("PGQRS_TEST_ACCESS").as_deref() {
        Ok("producer") => vec![Access::Producer],
        // Tests of consumers send what they receive. Nothing that a producer can do helps a consumer.
        Ok("consumer") => vec![Access::Consumer, Access::Producer],
        Ok(other) => panic!("PGQRS_TEST_ACCESS is `{other}`"),
        Err(_) => Vec::new(),
    }
}

/// The name of a role of a test's own, since all tests share a server.
pub(crate) fn role(pool: &PgPool) -> String {
    // The end of the database's name, which is random: the whole would be too long.
    let database = super::database(pool);
    format!("role_{}", &database[database.len().saturating_sub(32)..])
}

/// How the test's stores connect.
pub(super) async fn options(pool: &PgPool) -> Arc<PgConnectOptions> {
    let owner = pool.connect_options();
    let wanted = wanted();
    if wanted.is_empty() {
        return owner;
    }
    let role = role(pool);
    let grants: String = wanted.iter().map(|access| access.grants(&role)).collect();
    let statements = format!(
        "begin;
         select pg_advisory_xact_lock(1);
         do $$ begin create role \"{role}\" login password 'role'; exception when duplicate_object then null; end $$;
         {grants}
         commit;"
    );
    let made = sqlx::raw_sql(AssertSqlSafe(statements)).execute(pool).await;
    made.expect("the role is made");
    Arc::new((*owner).clone().username(&role).password("role"))
}

pub(super) async fn store(pool: &PgPool) -> Store {
    if wanted().is_empty() {
        return Store::from(pool.clone());
    }
    let options = options(pool).await;
    Store::from(PgPoolOptions::new().connect_lazy_with((*options).clone()))
}
