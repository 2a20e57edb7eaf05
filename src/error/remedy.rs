//! What to do about an error, by its cause.

pub(super) fn permission_remedy(role: Option<&str>, object: &str) -> String {
    let (subject, name) = match role {
        Some(role) => (format!("role `{role}`"), role),
        None => ("the connected role".to_owned(), "ROLE"),
    };
    format!(
        "{subject} lacks a privilege on {object}; grant it what it needs: `cargo xtask migrate grants --producer {name}`, `--consumer {name}` or `--operator {name}` prints the GRANTs, and `pgqrs::Access` returns them"
    )
}

/// `pgqrs.messages, pgqrs.queues`.
pub(crate) fn qualified(tables: &[String]) -> String {
    let names: Vec<_> = tables
        .iter()
        .map(|table| format!("pgqrs.{table}"))
        .collect();
    names.join(", ")
}

/// What to do about tables that Citus manages. It doesn't turn one with an identity column into a local one again.
pub(crate) const DISTRIBUTED_REMEDY: &str = "stop what uses them, save what they hold with `pg_dump --data-only --schema=pgqrs --exclude-table=pgqrs._sqlx_migrations`, run `drop schema pgqrs cascade`, install it again, and load what was saved";

pub(crate) const GENERAL_REMEDY: &str =
    "check the URL, and that the server runs and accepts connections";

/// What to do about a TLS handshake that failed. Its reason is only in its text, which differs between the TLS
/// implementations.
pub(super) fn tls_remedy(reason: &str) -> &'static str {
    let reason = reason.to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| reason.contains(text));
    if says(&["alert"]) {
        "the server refused this client's certificate: check `sslcert` and `sslkey` in the URL, and that the server trusts the CA that signed it"
    } else if says(&[
        "not valid for name",
        "hostname mismatch",
        "ip address mismatch",
    ]) {
        "the server's certificate is for another host name: use a name that it is issued for in the URL, or use `sslmode=verify-ca` to check its CA only"
    } else if says(&[
        "unknownissuer",
        "local issuer",
        "self-signed",
        "self signed",
    ]) {
        "the CA of the server's certificate is not trusted: name the CA's file with `sslrootcert=` in the URL"
    } else if says(&["unsupportedcertversion"]) {
        "the server's certificate is of version 1, which rustls refuses, whether it is verified or not: give the server one of version 3, build pgqrs with its feature `tls-native`, or connect with `sslmode=disable`"
    } else if says(&["expired"]) {
        "the server's certificate has expired: renew it, and check this machine's clock"
    } else if says(&["server does not support tls"]) {
        "the server offers no TLS: set `ssl = on` there, or connect with `sslmode=disable`"
    } else if says(&["without tls support"]) {
        "pgqrs was built without TLS: enable its feature `tls-rustls-ring`, `tls-rustls-aws-lc` or `tls-native`"
    } else {
        "check `sslmode`, `sslrootcert`, `sslcert` and `sslkey` in the URL"
    }
}
