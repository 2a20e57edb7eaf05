//! What an error says if a URL leads to no host.

use super::*;

fn no_host(reasons: impl IntoIterator<Item = Unsuitable>) -> Error {
    let named = ["a:5432/app", "b:5433/app"].map(str::to_owned);
    Error::of_hosts(NoHost::new(named.into_iter().zip(reasons).collect()))
}

fn refused() -> Unsuitable {
    let error = io::Error::from(io::ErrorKind::ConnectionRefused);
    Unsuitable::Failed(Arc::new(sqlx::Error::Io(error)))
}

fn invalid() -> Unsuitable {
    Unsuitable::Failed(Arc::new(sqlx::Error::Configuration("a reason".into())))
}

#[test]
fn an_error_names_each_host_and_says_what_to_do() {
    let within = Duration::from_secs(2);
    for (reasons, text) in [
        (
            [refused(), Unsuitable::NoAnswer { within }],
            "can't connect to PostgreSQL; check the URL, and that one of its hosts runs and accepts connections: \
             error communicating with database: a:5432/app: error communicating with database: connection refused; \
             b:5433/app: no answer within 2s",
        ),
        (
            [Unsuitable::Standby, Unsuitable::ReadOnly],
            "can't connect to PostgreSQL; none of the URL's hosts accepts writes: promote a standby, or add the \
             primary to the URL: error communicating with database: a:5432/app: it is a standby; b:5433/app: its \
             transactions are read-only",
        ),
    ] {
        assert_eq!(error_chain(&no_host(reasons)), text);
    }
}

#[test]
fn trying_again_helps_unless_every_host_refuses_for_good() {
    assert!(no_host([refused(), invalid()]).is_retryable());
    assert!(no_host([Unsuitable::Standby, invalid()]).is_retryable());
    assert!(!no_host([invalid(), invalid()]).is_retryable());
}
