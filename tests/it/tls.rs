//! TLS: which servers are trusted, client certificates, and that all of a store's connections use it. Each test has a
//! server of its own, which refuses connections without TLS.

use std::{fs, path::Path, process::Command, time::Duration};

use pgqrs::{ConnectOptions, Error, Store};
use sqlx::PgPool;

use crate::support::{
    self, TestResult, chain,
    consumers::{Seen, consumer, start},
    server::Server,
    until, url,
};

/// A CA, and what it has signed: a certificate of the server, for `localhost`, and one of a client, for the role
/// `certified`. Another CA has signed nothing.
fn make_certificates(folder: &Path) -> TestResult {
    let openssl = |arguments: &[&str]| -> TestResult {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(folder)
            .output()
            .map_err(|error| format!("openssl doesn't start: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(())
    };
    let key = |name: &str| {
        let file = format!("{name}.key");
        openssl(&[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            &file,
        ])?;
        // Of the two forms of such a key, the one that every TLS implementation reads.
        openssl(&[
            "pkcs8",
            "-topk8",
            "-nocrypt",
            "-in",
            &file,
            "-out",
            &format!("{name}.pk8"),
        ])
    };
    for ca in ["ca", "other-ca"] {
        key(ca)?;
        let (key, certificate, subject) = (
            format!("{ca}.key"),
            format!("{ca}.crt"),
            format!("/CN={ca}"),
        );
        openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            &key,
            "-subj",
            &subject,
            "-days",
            "2",
            "-out",
            &certificate,
        ])?;
    }
    for (name, subject, extensions) in [
        ("server", "/CN=server", "subjectAltName=DNS:localhost\n"),
        ("client", "/CN=certified", "extendedKeyUsage=clientAuth\n"),
    ] {
        key(name)?;
        fs::write(folder.join("extensions"), extensions)?;
        let (key, request, certificate) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.crt"),
        );
        openssl(&[
            "req", "-new", "-key", &key, "-subj", subject, "-out", &request,
        ])?;
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            &certificate,
        ])?;
    }
    // Without extensions it is of version 1.
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-days",
        "2",
        "-out",
        "old.crt",
    ])
}

struct TlsServer(Server);

impl TlsServer {
    async fn start() -> Result<Self, Box<dyn std::error::Error>> {
        Self::with("server.crt").await
    }

    async fn with(certificate: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let server = Server::create().await?;
        make_certificates(server.folder())?;
        server.hand_over(&server.folder().join("server.key"))?;
        let folder = server.folder().display();
        let settings = format!(
            "ssl = on\nssl_cert_file = '{folder}/{certificate}'\nssl_key_file = '{folder}/server.key'\n\
             ssl_ca_file = '{folder}/ca.crt'\npassword_encryption = 'scram-sha-256'\n"
        );
        let admitted = "hostssl all postgres all trust\n\
                        hostssl all scram all scram-sha-256\n\
                        hostssl all certified all cert\n\
                        hostnossl all all all reject\n";
        server.configure(&settings, admitted)?;
        server.up()?;
        Ok(Self(server))
    }

    fn file(&self, name: &str) -> String {
        self.0.folder().join(name).display().to_string()
    }

    /// Of a host that leads to it: `localhost`, which its certificate is for, or `127.0.0.1`, which it isn't for.
    fn url(&self, user: &str, host: &str, settings: &[(&str, &str)]) -> String {
        let base = format!("postgres://{user}@{host}:{}/postgres", self.0.port());
        let mut url: url::Url = base.parse().expect("a URL");
        url.query_pairs_mut().extend_pairs(settings);
        url.into()
    }

    /// A store of the superuser, with the queue `tasks`.
    async fn installed(&self) -> pgqrs::Result<Store> {
        let ca = self.file("ca.crt");
        let verified = [("sslmode", "verify-full"), ("sslrootcert", &*ca)];
        let options = ConnectOptions::builder()
            .url(self.url("postgres", "localhost", &verified))
            .install(true)
            .build();
        let store = pgqrs::connect_with(options).await?;
        store.queue("tasks").await?;
        Ok(store)
    }
}

async fn is_encrypted(store: &Store) -> sqlx::Result<bool> {
    sqlx::query_scalar("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        .fetch_one(store.pool())
        .await
}

#[tokio::test]
async fn each_sslmode_connects_to_a_server_that_fulfils_it() -> TestResult {
    let server = TlsServer::start().await?;
    let ca = server.file("ca.crt");
    for (host, settings) in [
        // The default.
        ("localhost", &[][..]),
        ("localhost", &[("sslmode", "prefer")]),
        ("localhost", &[("sslmode", "require")]),
        (
            "127.0.0.1",
            &[("sslmode", "verify-ca"), ("sslrootcert", &*ca)],
        ),
        (
            "localhost",
            &[("sslmode", "verify-full"), ("sslrootcert", &*ca)],
        ),
    ] {
        let store = pgqrs::connect(&server.url("postgres", host, settings)).await?;
        assert!(is_encrypted(&store).await?, "{settings:?}");
        store.pool().close().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_refused_with_the_remedy() -> TestResult {
    let server = TlsServer::start().await?;
    let (ca, other) = (server.file("ca.crt"), server.file("other-ca.crt"));
    let (missing, none) = (server.file("missing.crt"), server.file("extensions"));
    for (host, mode, root, remedy) in [
        (
            "127.0.0.1",
            "verify-full",
            Some(&ca),
            "for another host name",
        ),
        ("localhost", "verify-full", Some(&other), "`sslrootcert=`"),
        ("localhost", "verify-ca", Some(&other), "`sslrootcert=`"),
        ("localhost", "verify-full", None, "`sslrootcert=`"),
        (
            "localhost",
            "verify-full",
            Some(&missing),
            "can't be read: check the paths of `sslrootcert`",
        ),
        // A file without a certificate.
        ("localhost", "verify-ca", Some(&none), "`sslrootcert"),
        ("localhost", "disable", None, "`sslmode=require`"),
    ] {
        let mut settings = vec![("sslmode", mode)];
        settings.extend(root.map(|root| ("sslrootcert", root.as_str())));
        let refused = pgqrs::connect(&server.url("postgres", host, &settings)).await;
        let refused = refused.expect_err(&format!("{host} {settings:?}"));
        assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
        // A missing file may also be the socket of a server that restarts.
        let is_missing = root == Some(&missing);
        assert_eq!(refused.is_retryable(), is_missing, "{refused:?}");
        assert!(
            refused.to_string().contains(remedy),
            "{host} {settings:?}: {}",
            chain(&refused)
        );
    }
    Ok(())
}

/// As of Citus, which makes one for itself.
#[tokio::test]
async fn a_certificate_of_version_1_is_refused_with_the_remedy() -> TestResult {
    let server = TlsServer::with("old.crt").await?;
    for mode in ["prefer", "require"] {
        let url = server.url("postgres", "localhost", &[("sslmode", mode)]);
        let refused = pgqrs::connect(&url).await.expect_err(mode);
        assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
        assert!(
            refused.to_string().contains("`tls-native`"),
            "{mode}: {}",
            chain(&refused)
        );
    }
    Ok(())
}

/// The server that all tests share has none.
#[sqlx::test(migrations = false)]
async fn a_server_without_tls_is_refused_if_tls_is_required(pool: PgPool) -> TestResult {
    let mut url: url::Url = url(&pool).parse()?;
    url.set_query(Some("sslmode=require"));
    let refused = pgqrs::connect(url.as_str()).await.unwrap_err();
    assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
    let remedy = "the server offers no TLS: set `ssl = on` there";
    assert!(refused.to_string().contains(remedy), "{}", chain(&refused));
    Ok(())
}

#[tokio::test]
async fn a_client_certificate_is_the_login() -> TestResult {
    let server = TlsServer::start().await?;
    let superuser = server.installed().await?;
    sqlx::raw_sql("create role certified login")
        .execute(superuser.pool())
        .await?;
    let (ca, certificate) = (server.file("ca.crt"), server.file("client.crt"));
    let (key, foreign, foreign_key) = (
        server.file("client.pk8"),
        server.file("other-ca.crt"),
        server.file("other-ca.pk8"),
    );
    let verified = [("sslmode", "verify-full"), ("sslrootcert", &*ca)];
    let with = |certificate, key| {
        let settings = [&verified[..], &[("sslcert", certificate), ("sslkey", key)]].concat();
        server.url("certified", "localhost", &settings)
    };
    let store = pgqrs::connect(&with(&certificate, &key)).await?;
    let user: String = sqlx::query_scalar("select current_user::text")
        .fetch_one(store.pool())
        .await?;
    assert_eq!(user, "certified");
    store.pool().close().await;

    for (url, remedy) in [
        (
            server.url("certified", "localhost", &verified),
            "a client certificate (`sslcert` and `sslkey`)",
        ),
        (with(&foreign, &foreign_key), "check `sslcert` and `sslkey`"),
        (
            with(&certificate, "/no/such.key"),
            "check the paths of `sslrootcert`, `sslcert` and `sslkey`",
        ),
    ] {
        let refused = pgqrs::connect(&url).await.unwrap_err();
        assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
        assert!(
            refused.to_string().contains(remedy),
            "{url}: {}",
            chain(&refused)
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_password_is_checked_by_scram_over_tls() -> TestResult {
    let server = TlsServer::start().await?;
    let superuser = server.installed().await?;
    sqlx::raw_sql("create role scram login password 'right'")
        .execute(superuser.pool())
        .await?;
    let store = pgqrs::connect(&server.url("scram:right", "localhost", &[])).await?;
    assert!(is_encrypted(&store).await?);
    store.pool().close().await;
    let refused = pgqrs::connect(&server.url("scram:wrong", "localhost", &[]))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
    assert!(!refused.is_retryable());
    assert!(
        refused
            .to_string()
            .contains("check the user and the password"),
        "{}",
        chain(&refused)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_loops_listen_and_reconnects_use_tls() -> TestResult {
    let server = TlsServer::start().await?;
    let (store, elsewhere) = (server.installed().await?, server.installed().await?);
    let seen = Seen::default();
    // It isn't to find messages by polling.
    let consumer = consumer().poll_interval(Duration::from_secs(600));
    let running = start(consumer.create(&store).await?, seen.handler());
    let listening = "select count(*) from pg_stat_activity where query ilike 'listen%' and application_name = 'pgqrs'";
    for round in 1..=2 {
        until("it listens", async || {
            let sessions = sqlx::query_scalar(listening)
                .fetch_one(elsewhere.pool())
                .await;
            sessions.is_ok_and(|sessions: i64| sessions == 1)
        })
        .await;
        support::send(&elsewhere, &[round]).await?;
        until("the message is handled", async || seen.len() == round).await;
        let plain: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_ssl join pg_stat_activity using (pid)
             where backend_type = 'client backend' and not ssl",
        )
        .fetch_one(elsewhere.pool())
        .await?;
        assert_eq!(plain, 0);
        if round == 1 {
            server.0.restart("fast").await?;
        }
    }
    running.stop().await?;
    Ok(())
}
