//! Every view in Chromium: how it looks, who can read it, how it is used.

use fantoccini::{Locator, key::Key};
use serde_json::json;
use sqlx::PgPool;

use crate::{
    http::VIEWS,
    support::{Browser, TestResult, filled, serve},
};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn every_view_can_be_read_by_everybody_in_light_dark_and_narrow(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let served = serve(pgqrs_web::router(&store), "127.0.0.1:0").await?;
    let Some(browser) = Browser::start().await else {
        return Ok(());
    };
    for (n, view) in VIEWS.into_iter().chain(["/health", "/nothing"]).enumerate() {
        browser
            .client
            .goto(&format!("{}{view}", served.url))
            .await?;
        let name: String = view
            .split(['?', '%'])
            .next()
            .unwrap_or_default()
            .replace('/', "-");
        let name = format!(
            "{n:02}{}",
            if name.is_empty() { "-overview" } else { &name }
        );
        for (scheme, width) in [("light", 1_280), ("dark", 1_280), ("light", 390)] {
            browser.prefer(scheme).await?;
            browser.client.set_window_size(width, 900).await?;
            let violations = browser.violations().await?;
            assert!(
                violations.is_empty(),
                "{view}, {scheme}, {width}:\n{violations}"
            );
            let wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
            assert_eq!(
                browser.run(wide).await?,
                json!(false),
                "{view} is too wide at {width}"
            );
            browser
                .picture(&format!("{name}-{scheme}-{width}"), width)
                .await?;
        }
        let console = browser.console().await?;
        let console: Vec<_> = console
            .iter()
            .filter(|line| !line.contains("404"))
            .collect();
        assert!(console.is_empty(), "{view}: {console:?}");
    }
    browser.close().await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_follows_the_queue_until_it_is_paused(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let served = serve(pgqrs_web::router(&store), "127.0.0.1:0").await?;
    let Some(browser) = Browser::start().await else {
        return Ok(());
    };
    let send =
        async |queue: &'static str| pgqrs::enqueue().message(&1).to(queue).execute(&store).await;
    browser.client.goto(&served.url).await?;
    browser.run("window.sameDocument = true").await?;
    browser.shows("main", "invoices").await;
    send("invoices").await?;
    let ready = "tr:nth-child(2) td[data-label=ready]";
    browser.shows(ready, "1").await;
    browser.click(Locator::Id("pause")).await?;
    assert_eq!(browser.text("#pause").await, "Paused");
    send("invoices").await?;
    // As long as three polls would take: nothing can be waited for, since nothing is to happen.
    let fetched = "return performance.getEntriesByType('resource').filter((one) => one.initiatorType === 'fetch').length";
    let before = browser.run(fetched).await?;
    browser
        .client
        .execute_async("setTimeout(arguments[0], 9000)", Vec::new())
        .await?;
    assert_eq!(browser.run(fetched).await?, before);
    assert_eq!(browser.text(ready).await, "1");
    browser.click(Locator::Id("pause")).await?;
    browser.shows(ready, "2").await;
    assert_eq!(
        browser.run("return window.sameDocument").await?,
        json!(true)
    );
    browser.close().await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_is_used_with_the_keyboard_alone(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let served = serve(pgqrs_web::router(&store), "127.0.0.1:0").await?;
    let Some(browser) = Browser::start().await else {
        return Ok(());
    };
    browser.client.goto(&served.url).await?;
    let press = async |keys: &str| -> TestResult {
        let active = browser.client.active_element().await?;
        active.send_keys(keys).await?;
        Ok(())
    };
    let (tab, enter) = (
        String::from(char::from(Key::Tab)),
        String::from(char::from(Key::Enter)),
    );
    let active = "const active = document.activeElement; return active.textContent.trim()";
    // Past the navigation, to the first queue.
    press(&tab).await?;
    assert_eq!(browser.run(active).await?, json!("Skip to the content"));
    press(&enter).await?;
    for _ in 0..20 {
        press(&tab).await?;
        if browser.run(active).await? == json!("emails") {
            break;
        }
    }
    assert_eq!(browser.run(active).await?, json!("emails"));
    press(&enter).await?;
    browser.shows("h1", "emails").await;
    press("/").await?;
    press(&format!("welcome-11{enter}")).await?;
    browser.shows("h2", "Message 12").await;
    browser.shows("pre", "customer-11@example.com").await;
    // What has the focus keeps it when the view is replaced: a link, and what has neither a link nor an id.
    for (n, what) in [(1, ".tabs a:nth-child(2)"), (2, "[tabindex='0']")] {
        browser
            .run(&format!("document.querySelector(\"{what}\").focus()"))
            .await?;
        let message = pgqrs::enqueue().message(&1).to("emails").delay(60);
        message.execute(&store).await?;
        browser.shows(".tabs a:nth-child(2)", &n.to_string()).await;
        let focused = format!("return document.activeElement.matches(\"{what}\")");
        assert_eq!(browser.run(&focused).await?, json!(true), "{what}");
    }
    browser.close().await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_can_be_read_and_searched_without_javascript(pool: PgPool) -> TestResult {
    let store = filled(&pool).await?;
    let served = serve(pgqrs_web::router(&store), "127.0.0.1:0").await?;
    let without = json!({"profile.managed_default_content_settings.javascript": 2});
    let Some(browser) = Browser::with(&without).await else {
        return Ok(());
    };
    browser
        .client
        .goto(&format!("{}/queues/emails", served.url))
        .await?;
    assert!(browser.text("tbody").await.contains(" UTC"));
    assert_eq!(
        browser.text(".live").await,
        "",
        "nothing that needs the script is shown"
    );
    browser.click(Locator::Css("summary")).await?;
    let path = browser.client.find(Locator::Id("path")).await?;
    path.send_keys("to").await?;
    let value = browser.client.find(Locator::Id("value")).await?;
    value.send_keys("customer-9@example.com").await?;
    browser.click(Locator::Css(".filter button")).await?;
    browser.shows("tbody", "welcome-9").await;
    assert!(!browser.text("tbody").await.contains("welcome-8"));
    browser.picture("without-javascript", 1_280).await?;
    browser.close().await
}
