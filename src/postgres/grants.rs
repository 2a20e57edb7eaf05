//! The privileges of roles that don't own the schema, as SQL for its owner to run. Creating queues and installing the
//! schema require more.

/// What a role can do with pgqrs: for services that should have no more privileges than they need.
///
/// | | can | can't |
/// |---|---|---|
/// | `Producer` | enqueue; register a producer, and suspend, resume or stop it | read payloads, claim, settle, delete messages |
/// | `Consumer` | claim and settle; register a consumer | enqueue; create, configure or delete queues; read what is archived or dead |
/// | `Operator` | read everything; requeue, release, reschedule; pause and close queues; suspend, stop and remove workers | enqueue through a store, claim, delete messages; create, configure or delete queues |
///
/// All three can connect with [`install(true)`](crate::ConnectOptions) if there is nothing to install. A role can have
/// several of these.
///
/// Roles with access to the same schema are not protected from each other: the rows of `pgqrs.workers` and
/// `pgqrs.writers` have no owner. So a producer or a consumer could suspend or remove another's worker, and a producer
/// could keep another's sends from being stored, or have one stored twice. Neither could read what the other sends. A
/// consumer settles whatever it can claim, and so all queues. If roles don't trust each other to that extent, give them
/// databases of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Sends messages.
    Producer,
    /// Handles messages.
    Consumer,
    /// Looks after queues and workers.
    Operator,
}

impl Access {
    /// The GRANTs for a role, one statement a line, for the schema's owner to run after each migration. `cargo xtask
    /// migrate grants` prints the same.
    ///
    /// # Example
    /// ```
    /// let grants = pgqrs::Access::Producer.grants("web");
    /// assert!(grants.contains(r#"grant insert on pgqrs.messages to "web";"#));
    /// ```
    pub fn grants(self, role: &str) -> String {
        let grants = match self {
            Self::Producer => include_str!("../../grants/producer.sql"),
            Self::Consumer => include_str!("../../grants/consumer.sql"),
            Self::Operator => include_str!("../../grants/operator.sql"),
        };
        let quoted = format!("\"{}\"", role.replace('"', "\"\""));
        // As a psql variable, so that the files also work in psql.
        grants.replace(":\"role\"", &quoted)
    }
}
