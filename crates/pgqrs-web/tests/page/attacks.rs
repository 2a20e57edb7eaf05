//! Nothing that is stored runs in the page, wherever it is shown.

use serde_json::json;
use sqlx::PgPool;

use crate::support::{Browser, TestResult, filled, serve, until};

const ATTACKS: [&str; 10] = [
    "<script>window.attacked = 'script'</script>",
    "<img src=x onerror=\"window.attacked = 'img'\">",
    "\"><svg onload=\"window.attacked = 'svg'\">",
    "' autofocus onfocus='window.attacked = 1' x='",
    "javascript:window.attacked='link'",
    "</pre></main><script>window.attacked = 'end'</script>",
    "<iframe srcdoc=\"<script>parent.attacked = 1</script>\"></iframe>",
    "<style>body { display: none }</style>",
    "<base href=\"//attacker.example\"><form action=\"//attacker.example\">",
    "&lt;script&gt;window.attacked = 'twice'&lt;/script&gt;",
];

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn markup_in_names_payloads_headers_keys_and_errors_never_runs(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let mut paths = vec![
        String::new(),
        "/workers".into(),
        "/schedules".into(),
        "/health".into(),
    ];
    for (n, attack) in ATTACKS.into_iter().enumerate() {
        let queue = pgqrs::QueueName::new(attack)?;
        store.queue(queue.clone()).await?;
        let mut sent = Vec::new();
        for n in 0..3 {
            let message = pgqrs::enqueue()
                .message(&json!({attack: [attack]}))
                .header("note", attack)
                .header("traceparent", attack)
                .unique(format!("{attack}{n}"));
            sent.push(message.to(queue.clone()).execute(&store).await?[0]);
        }
        let consumer = pgqrs::consumer(queue.clone()).identity(format!("host-{n}"), 1);
        let consumer = consumer.create(&store).await?;
        let claimed = consumer.dequeue().limit(2).execute(&store).await?;
        let first = claimed.into_iter().next().expect("two are claimed");
        first.dead_letter(attack, &store).await?;
        let schedule = pgqrs::schedule(format!("{attack}{n}"), queue)
            .every(std::time::Duration::from_secs(60));
        schedule.message(&attack).install(&store).await?;
        let name: String = attack.bytes().map(|byte| format!("%{byte:02x}")).collect();
        paths.extend([
            format!("/queues/{name}"),
            format!("/queues/{name}?state=leased"),
            format!("/queues/{name}?header={name}&path={name}&value={name}&error={name}"),
            format!("/queues/{name}/dead"),
            format!("/queues/{name}/dead?reason={name}&key={name}"),
            format!("/queues/{name}/find?q={name}"),
            format!("/queues/{name}/messages/{}", sent[0]),
            format!("/queues/{name}/messages/{}", sent[1]),
            format!("/workers/{}", consumer.id()),
            format!("/schedules/{name}{n}"),
            format!("/{name}"),
        ]);
        let hosts = "update pgqrs.workers set hostname = $1 where hostname = $2";
        sqlx::query(hosts)
            .bind(attack)
            .bind(format!("host-{n}"))
            .execute(&pool)
            .await?;
        for errors in [
            "update pgqrs.messages set last_error = $1",
            "update pgqrs.dead_letters set last_error = $1",
        ] {
            sqlx::query(errors).bind(attack).execute(&pool).await?;
        }
    }
    let served = serve(pgqrs_web::router(&store), "127.0.0.1:0").await?;
    let Some(browser) = Browser::start().await else {
        return Ok(());
    };
    for path in &paths {
        browser
            .client
            .goto(&format!("{}{path}", served.url))
            .await?;
        let state = "return [window.attacked ?? null, document.querySelectorAll('main script, main img, main iframe, main style, base, [onload], [onfocus], [onerror]').length,
             [...document.links].filter((link) => !link.href.startsWith(location.origin)).length,
             getComputedStyle(document.body).display]";
        assert_eq!(
            browser.run(state).await?,
            json!([null, 0, 0, "block"]),
            "{path}"
        );
    }
    // And as the script puts it in, when the view has changed.
    browser.client.goto(&served.url).await?;
    browser.run("window.kept = true").await?;
    let queue = pgqrs::QueueName::new(ATTACKS[1])?;
    let script =
        "return [...document.querySelectorAll('main tr')].map((row) => row.textContent).join()";
    let before = browser.run(script).await?;
    pgqrs::enqueue()
        .message(&1)
        .to(queue)
        .execute(&store)
        .await?;
    until("the view is replaced", async || {
        browser.run(script).await.is_ok_and(|now| now != before)
    })
    .await;
    let attacked = "return [window.kept, window.attacked ?? null]";
    assert_eq!(browser.run(attacked).await?, json!([true, null]));
    let console = browser.console().await?;
    let refused = console
        .iter()
        .find(|line| line.contains("Content Security Policy"));
    assert_eq!(refused, None, "nothing even tries");
    browser.close().await
}
