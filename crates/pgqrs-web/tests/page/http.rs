//! What is answered, without a browser.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
};
use pgqrs::QueueOptions;
use serde_json::{Value, json};
use sqlx::PgPool;
use tower::ServiceExt;

use crate::support::{TestResult, filled, until};

struct Answer {
    status: StatusCode,
    headers: header::HeaderMap,
    body: String,
}

async fn ask(
    router: &Router,
    request: Request<Body>,
) -> Result<Answer, Box<dyn std::error::Error>> {
    let response = router.clone().oneshot(request).await?;
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await?;
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec())?,
    })
}

async fn get(router: &Router, path: &str) -> Result<Answer, Box<dyn std::error::Error>> {
    ask(router, Request::get(path).body(Body::empty())?).await
}

/// All views, as paths below the prefix.
pub(crate) const VIEWS: [&str; 12] = [
    "",
    "/queues/emails",
    "/queues/emails?state=delayed",
    "/queues/emails?state=leased&order=newest",
    "/queues/emails/dead",
    "/queues/emails/dead?reason=mailbox%20full",
    "/queues/emails/find?q=welcome-11",
    "/queues/emails/messages/9",
    "/workers",
    "/workers/1",
    "/schedules",
    "/schedules/nightly-report",
];

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn every_view_is_there_under_any_prefix_and_links_below_it(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let bare = pgqrs_web::router(&store);
    let nested = Router::new().nest("/ops/queues", pgqrs_web::router(&store));
    let proxied = pgqrs_web::page(&store).base("/ops/queues/").router();
    for (router, prefix, base) in [
        (&bare, "", ""),
        (&nested, "/ops/queues", "/ops/queues"),
        (&proxied, "", "/ops/queues"),
    ] {
        for view in VIEWS.into_iter().chain(["/health"]) {
            let path = format!("{prefix}{view}");
            let path = if path.is_empty() { "/" } else { &path };
            let answer = get(router, path).await?;
            assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
            for link in ["href=\"", "src=\"", "action=\""] {
                for rest in answer.body.split(link).skip(1) {
                    let target = rest.split('"').next().expect("a quote ends it");
                    let is_below =
                        target.starts_with(base) && target[base.len()..].starts_with('/');
                    let is_here = target.starts_with('#') || target == base;
                    assert!(is_below || is_here, "{path}: {target}");
                }
            }
        }
    }
    for absent in [
        "/nothing",
        "/queues/absent",
        "/queues/absent/dead",
        "/queues/emails/messages/x",
        "/workers/x",
        "/workers/999",
        "/schedules/absent",
        "/queues/%0A",
        "/api/v2/queues",
    ] {
        assert_eq!(
            get(&bare, absent).await?.status,
            StatusCode::NOT_FOUND,
            "{absent}"
        );
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_only_reads_and_allows_nothing_from_elsewhere(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let router = pgqrs_web::router(&store);
    let answer = get(&router, "/queues/emails").await?;
    let of =
        |name: header::HeaderName| answer.headers[name].to_str().unwrap_or_default().to_owned();
    let policy = of(header::CONTENT_SECURITY_POLICY);
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"));
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"));
    assert_eq!(of(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    for outside in [
        "http://",
        "https://",
        "//cdn",
        "style=",
        "onclick",
        "<form method=\"post\"",
    ] {
        assert!(!answer.body.contains(outside), "{outside}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for path in [
            "/",
            "/queues/emails",
            "/act/pause-queue?queue=emails",
            "/api/v1/queues",
        ] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .body(Body::empty())?;
            let refused = ask(&router, request).await?;
            assert_eq!(
                refused.status,
                StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}"
            );
        }
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_is_unchanged_is_not_sent_again(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let router = pgqrs_web::router(&store);
    let first = get(&router, "/queues/emails?state=ready").await?;
    let tag = first.headers[header::ETAG].clone();
    let again = Request::get("/queues/emails?state=ready").header(header::IF_NONE_MATCH, tag);
    let again = ask(&router, again.body(Body::empty())?).await?;
    assert_eq!(
        (again.status, again.body.as_str()),
        (StatusCode::NOT_MODIFIED, "")
    );
    let other = Request::get("/queues/emails?state=ready").header(header::IF_NONE_MATCH, "\"0\"");
    let other = ask(&router, other.body(Body::empty())?).await?;
    assert_eq!((other.status, other.body), (StatusCode::OK, first.body));
    let head = Request::head("/").body(Body::empty())?;
    assert_eq!(ask(&router, head).await?.body, "");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_first_view_is_under_sixty_kilobytes_with_all_it_loads(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let router = pgqrs_web::router(&store);
    let page = get(&router, "/").await?.body;
    let (style, script) = (
        get(&router, "/style.css").await?,
        get(&router, "/script.js").await?,
    );
    assert!(script.body.len() <= 20_000, "{}", script.body.len());
    let total = page.len() + style.body.len() + script.body.len();
    assert!(total < 60_000, "{total}");
    assert!(
        style.headers[header::CACHE_CONTROL]
            .to_str()?
            .contains("immutable")
    );
    assert_eq!(
        style.headers[header::CONTENT_TYPE],
        "text/css; charset=utf-8"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn payloads_of_a_hidden_queue_are_nowhere(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let page = pgqrs_web::page(&store).hide_payloads(["emails"]);
    shows_no_payloads(&page.router()).await?;
    let shown = get(&pgqrs_web::router(&store), "/queues/emails/messages/9").await?;
    assert!(shown.body.contains("customer-8@example.com"));
    let sensitive = QueueOptions::builder().sensitive(true).build();
    let admin = pgqrs::admin(&store);
    let info = admin.configure_queue("emails", sensitive).await?;
    assert!(info.sensitive);
    let page = pgqrs_web::page(&store).actions(|_, _| true);
    let router = page.router();
    shows_no_payloads(&router).await?;
    let edit = "/act/edit?queue=emails&message=9";
    let body = get(&router, edit).await?.body;
    assert!(
        body.contains("<textarea") && !body.contains("@example.com"),
        "{body}"
    );
    for action in ["run-now", "cancel"] {
        let all = format!("/act/{action}?all=1&queue=emails&state=ready&path=to&value=");
        let hits = get(&router, &format!("{all}customer-9@example.com")).await?;
        assert!(
            hits.body.contains("<b id=\"count\">0</b> match now"),
            "{}",
            hits.body
        );
    }
    Ok(())
}

/// As if the consumers of `emails` had handled messages since their last heartbeat.
async fn beat(pool: &PgPool, ago: &str, settled: i64) -> TestResult {
    let beat = "update pgqrs.workers set heartbeat_at = now() - $1::text::interval, settled = $2
                where kind = 'consumer'";
    sqlx::query(beat)
        .bind(ago)
        .bind(settled)
        .execute(pool)
        .await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_comes_and_goes_is_known_from_heartbeats_and_depths(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let router = pgqrs_web::router(&store);
    let rates = async || -> Result<Value, Box<dyn std::error::Error>> {
        let queues = get(&router, "/api/v1/queues").await?.body;
        Ok(serde_json::from_str::<Value>(&queues)?["rates"]["emails"].clone())
    };
    beat(&pool, "20 seconds", 0).await?;
    let unknown = json!({"in_per_minute": null, "out_per_minute": null});
    assert_eq!(rates().await?, unknown);
    let sent: Vec<u32> = (0..10).collect();
    let sent = pgqrs::enqueue().messages(&sent).to("emails");
    sent.execute(&store).await?;
    until("it was looked at again", async || {
        beat(&pool, "0 seconds", 30).await.expect("written");
        rates().await.expect("read") != unknown
    })
    .await;
    let known = rates().await?;
    // 30 were done and 10 are left, in 25 seconds, or more if the machine is busy.
    let rate = |name: &str| known[name].as_u64().expect("it is known");
    assert!((20..=72).contains(&rate("out_per_minute")), "{known}");
    let ratio = rate("in_per_minute") as f64 / rate("out_per_minute") as f64;
    assert!((1.2..1.5).contains(&ratio), "{known}");
    let page = get(&router, "/").await?.body;
    assert!(
        page.contains("data-label=\"out per minute\"><div><span>"),
        "{page}"
    );
    let metrics = get(&router, "/metrics").await?.body;
    let out = format!(
        "pgqrs_queue_out_per_minute{{queue=\"emails\"}} {}\n",
        rate("out_per_minute")
    );
    assert!(metrics.contains(&out), "{metrics}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn many_queues_are_shown_page_by_page_and_found_by_their_names(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let many = "insert into pgqrs.queues (name) select 'tenant-' || lpad(n::text, 3, '0') from generate_series(1, 120) n";
    sqlx::query(many).execute(&pool).await?;
    let router = pgqrs_web::router(&store);
    let page = get(&router, "/").await?.body;
    assert_eq!(page.matches("<th scope=\"row\">").count(), 50);
    let assets =
        get(&router, "/style.css").await?.body.len() + get(&router, "/script.js").await?.body.len();
    assert!(page.len() + assets < 60_000, "{}", page.len() + assets);
    assert!(page.contains("href=\"/?after=tenant-047\""), "{page}");
    let next = get(&router, "/?after=tenant-047").await?.body;
    assert!(
        next.contains("tenant-048") && !next.contains("tenant-047<"),
        "{next}"
    );
    let found = get(&router, "/?name=-11").await?.body;
    assert_eq!(found.matches("<th scope=\"row\">").count(), 10);
    assert!(!found.contains("Next page"));
    Ok(())
}

async fn shows_no_payloads(router: &Router) -> TestResult {
    for path in VIEWS.into_iter().chain([
        "/api/v1/queues/emails/messages",
        "/api/v1/queues/emails/messages/9",
        "/api/v1/queues/emails/dead",
    ]) {
        let path = if path.is_empty() { "/" } else { path };
        let body = get(router, path).await?.body;
        assert!(!body.contains("@example.com"), "{path}");
    }
    // A search would tell by its results what is in them.
    let search = "/api/v1/queues/emails/messages?path=to&value=";
    let hits = get(router, &format!("{search}customer-9@example.com"))
        .await?
        .body;
    let misses = get(router, &format!("{search}nobody")).await?.body;
    assert_eq!(hits, misses);
    assert!(hits.contains("\"items\":[]"), "{hits}");
    let nameless = get(router, "/api/v1/queues/emails/messages?header=tenant")
        .await?
        .body;
    assert!(nameless.contains("\"items\":[]"), "{nameless}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_same_is_there_as_json(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let router = Router::new().nest("/q", pgqrs_web::router(&store));
    let json = async |path: &str| -> Result<Value, Box<dyn std::error::Error>> {
        let answer = get(&router, &format!("/q/api/v1{path}")).await?;
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
        Ok(serde_json::from_str(&answer.body)?)
    };
    let queues = json("/queues").await?;
    assert_eq!(queues["queues"][0]["stats"]["queue"], "emails");
    assert_eq!(json("/queues/emails").await?["stats"]["dead"]["value"], 3);
    let ready = json("/queues/emails/messages?header=tenant:acme").await?;
    assert_eq!(ready["items"][0]["headers"]["tenant"], "acme");
    let two = json("/queues/emails/messages?path=lines.1&value=2&error=").await?;
    assert_eq!(two["items"].as_array().map(Vec::len), Some(6));
    let message = json("/queues/emails/messages/9").await?;
    assert!(
        message["payload"]
            .as_str()
            .expect("a text")
            .contains("12345678901234567")
    );
    assert_eq!(
        json("/queues/emails/dead").await?["items"]
            .as_array()
            .map(Vec::len),
        Some(3)
    );
    assert_eq!(
        json("/queues/emails/reasons").await?[0]["letters"]["value"],
        2
    );
    assert_eq!(
        json("/workers/1").await?["held"].as_array().map(Vec::len),
        Some(3)
    );
    assert_eq!(
        json("/schedules/nightly-report").await?["next"]
            .as_array()
            .map(Vec::len),
        Some(10)
    );
    let history = json("/schedules/nightly-report").await?["history"].take();
    let outcomes: Vec<_> = history
        .as_array()
        .expect("a list")
        .iter()
        .map(|firing| firing["outcome"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(
        outcomes,
        [
            "done",
            "dead",
            "unfinished",
            "done",
            "queue_closed",
            "done",
            "done"
        ]
    );
    assert_eq!(
        json("/health").await?["role"].as_str().map(str::is_empty),
        Some(false)
    );
    assert!(json("/queues/absent").await?.get("error").is_some());
    assert_eq!(
        json("/nothing").await?,
        json!({"error": "there is nothing here"})
    );

    let metrics = get(&router, "/q/metrics").await?.body;
    assert!(
        metrics.contains("pgqrs_queue_messages{queue=\"emails\",state=\"dead\"} 3\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("pgqrs_queue_consumers{queue=\"emails\"} 1\n"),
        "{metrics}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn without_the_schema_and_without_the_server_it_says_what_is_missing(
    pool: PgPool,
) -> TestResult {
    let store = filled(&pool).await?;
    let router = pgqrs_web::router(&store);
    sqlx::query("drop schema pgqrs cascade")
        .execute(&pool)
        .await?;
    let absent = get(&router, "/workers").await?;
    assert_eq!(absent.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(absent.body.contains("install()"), "{}", absent.body);
    pool.close().await;
    let gone = get(&router, "/schedules").await?;
    assert!(gone.status.is_server_error());
    assert!(gone.body.contains("id=\"problem\""));
    assert!(get(&router, "/metrics").await?.status.is_server_error());
    Ok(())
}
