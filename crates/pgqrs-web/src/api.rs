//! The same as JSON, under `/api/v1`.

use axum::http::StatusCode;
use pgqrs::WorkerId;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    app::App,
    respond::{Asked, Rendered},
    views::{self, Problem},
};

pub(crate) async fn rendered(app: &App, asked: &Asked, parts: &[&str]) -> Rendered {
    let (status, value) = match answer(app, asked, parts).await {
        Ok(value) => (StatusCode::OK, value),
        Err(problem) => {
            let error = match &problem {
                Problem::NotFound => "there is nothing here".to_owned(),
                Problem::TooSlow => "the database took too long".to_owned(),
                Problem::Of(error) => error.to_string(),
            };
            (problem.status(), json!({ "error": error }))
        }
    };
    Rendered {
        status: status.as_u16(),
        kind: "application/json",
        body: value.to_string(),
    }
}

async fn answer(app: &App, asked: &Asked, parts: &[&str]) -> Result<Value, Problem> {
    let admin = &app.admin;
    match parts {
        ["v1", "queues"] => {
            let sample = app.sample().await?;
            let names = sample
                .health
                .queues
                .iter()
                .map(|queue| queue.stats.queue.as_str());
            let rates: serde_json::Map<_, _> = names
                .map(|name| Ok((name.to_owned(), of(&sample.history.rates(name))?)))
                .collect::<Result<_, Problem>>()?;
            Ok(json!({
                "queues": of(&sample.health.queues)?,
                "settings": of(&sample.queues)?,
                "rates": rates,
            }))
        }
        ["v1", "queues", queue] => {
            let queue = (*queue).to_owned();
            let settings = admin.queue(queue.clone()).await?;
            let stats = admin.queue_stats(queue).await?;
            Ok(json!({ "settings": of(&settings)?, "stats": of(&stats)? }))
        }
        ["v1", "queues", queue, "messages"] => {
            of(&views::messages::search(app, asked, queue).await?)
        }
        ["v1", "queues", queue, "dead"] => of(&views::dead::search(app, asked, queue).await?),
        ["v1", "queues", queue, "groups"] => of(&views::groups::list(app, asked, queue).await?),
        ["v1", "queues", queue, "reasons"] => {
            of(&admin.dead_letter_reasons((*queue).to_owned()).await?)
        }
        ["v1", "queues", queue, "messages", id] => {
            let id = id.parse().map_err(|_| Problem::NotFound)?;
            let found = admin.message((*queue).to_owned(), id).await?;
            let mut found = of(&found.ok_or(Problem::NotFound)?)?;
            // Asked for after the payload was read: a queue that was made sensitive meanwhile hides it.
            let is_hidden = app.hides_in(queue).await?;
            if let Some(found) = found.as_object_mut().filter(|_| is_hidden) {
                found.insert("payload".to_owned(), Value::Null);
            }
            Ok(found)
        }
        ["v1", "workers"] => of(&admin.workers(&pgqrs::WorkerFilter::default()).await?),
        ["v1", "workers", id] => {
            let id: i64 = id.parse().map_err(|_| Problem::NotFound)?;
            let worker = admin.worker(WorkerId::from(id)).await?;
            let held = admin.held_messages(worker.id).await?;
            Ok(json!({ "worker": of(&worker)?, "held": of(&held)? }))
        }
        ["v1", "schedules"] => of(&admin.schedules().await?),
        ["v1", "schedules", name] => {
            let schedule = admin.schedule(name).await?;
            let history = admin.schedule_history(name).await?;
            Ok(json!({
                "schedule": of(&schedule)?,
                "next": of(&schedule.upcoming(10)?)?,
                "history": of(&history)?,
            }))
        }
        ["v1", "health"] => of(&admin.health().await?),
        _ => Err(Problem::NotFound),
    }
}

fn of(value: &impl Serialize) -> Result<Value, Problem> {
    // What pgqrs returns has names for all keys.
    serde_json::to_value(value).map_err(|_| Problem::NotFound)
}
