//! Doing it: one thing at once, and what became of it in words.

use pgqrs::{
    Cancelled, Error, MessageId, WorkerId,
    chrono::{DateTime, NaiveDateTime, Utc},
};
use serde_json::value::RawValue;

use super::{Action, Target, groups};
use crate::app::App;

/// Before every time of the database, which takes it for the present.
pub(super) const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

pub(super) async fn perform(app: &App, target: &Target) -> Result<String, String> {
    let performed = match target.action {
        Action::Requeue
        | Action::DeleteDeadLetter
        | Action::RunNow
        | Action::Reschedule
        | Action::Cancel
        | Action::Edit => {
            let id = target.value("message").parse();
            let id = id.map_err(|_| "there is no such message".to_owned())?;
            on_message(app, target, id).await
        }
        Action::PauseQueue | Action::ResumeQueue => on_queue(app, target).await,
        Action::StopGroup | Action::ResumeGroup | Action::PromoteGroups | Action::PurgeGroup => {
            groups::perform(app, target).await
        }
        Action::SuspendWorker | Action::ResumeWorker | Action::StopWorker => {
            let id: i64 = target.value("worker").parse().unwrap_or_default();
            on_worker(app, target, WorkerId::from(id)).await
        }
        Action::FireSchedule | Action::PauseSchedule | Action::ResumeSchedule => {
            on_schedule(app, target).await
        }
    };
    performed.map_err(|error| error.to_string())
}

async fn on_message(app: &App, target: &Target, id: MessageId) -> Result<String, Error> {
    let (admin, queue) = (&app.admin, target.value("queue").to_owned());
    let outcome = match target.action {
        Action::Requeue => {
            let requeued = admin.requeue(queue, id).await?;
            match (requeued.back, requeued.held) {
                (0, 0) => "It is no dead letter any more",
                (0, _) => "It stays a dead letter: another message has its key",
                _ => "It is back",
            }
        }
        Action::DeleteDeadLetter => match admin.delete_dead_letters(queue, &[id]).await? {
            0 => "It is no dead letter any more",
            _ => "It is deleted",
        },
        Action::Reschedule => match time(target) {
            Some(time) if admin.reschedule(queue, id, time).await? => "Its time is set",
            Some(_) => "It isn't there any more, or a consumer holds it",
            None => "Not done: that is no time",
        },
        Action::RunNow => {
            if admin.reschedule(queue, id, NOW).await? {
                "It is ready"
            } else {
                "It isn't there any more, or a consumer holds it"
            }
        }
        Action::Edit => {
            let payload = target.value("payload").to_owned();
            match serde_json::from_str::<Box<RawValue>>(&payload) {
                Ok(payload) if admin.edit(queue, id, &payload).await? => "Its payload is replaced",
                Ok(_) => "It isn't there any more, or a consumer holds it",
                Err(_) => "Not done: that is no JSON",
            }
        }
        _ => match admin.cancel(queue, id).await? {
            Some(Cancelled::Waiting) => "It is cancelled",
            Some(Cancelled::Running) => "It is cancelled, and its handler is being stopped",
            None => "It isn't there any more",
        },
    };
    Ok(outcome.to_owned())
}

/// The time that was typed in, which is in UTC.
pub(super) fn time(target: &Target) -> Option<DateTime<Utc>> {
    let text = target.value("time");
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    // As browsers send it, with or without seconds.
    let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"].into_iter();
    let mut times = formats.filter_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    times.next().map(|time| time.and_utc())
}

async fn on_queue(app: &App, target: &Target) -> Result<String, Error> {
    let queue = target.value("queue").to_owned();
    if target.action == Action::PauseQueue {
        app.admin.pause_queue(queue).await?;
        return Ok("It is paused".to_owned());
    }
    app.admin.resume_queue(queue).await?;
    Ok("It is resumed".to_owned())
}

async fn on_worker(app: &App, target: &Target, worker: WorkerId) -> Result<String, Error> {
    let outcome = match target.action {
        Action::SuspendWorker => app
            .admin
            .suspend_worker(worker)
            .await
            .map(|()| "It is suspended"),
        Action::ResumeWorker => app
            .admin
            .resume_worker(worker)
            .await
            .map(|()| "It is resumed"),
        _ => app
            .admin
            .stop_worker(worker)
            .await
            .map(|()| "It is stopped"),
    };
    outcome.map(str::to_owned)
}

async fn on_schedule(app: &App, target: &Target) -> Result<String, Error> {
    let schedule = target.value("schedule");
    match target.action {
        Action::FireSchedule => Ok(match app.admin.fire_schedule(schedule).await? {
            Some(message) => format!("Message {message} is sent"),
            None => "Nothing is sent: another message has its key".to_owned(),
        }),
        Action::PauseSchedule => {
            app.admin.pause_schedule(schedule).await?;
            Ok("It is paused".to_owned())
        }
        _ => {
            app.admin.resume_schedule(schedule).await?;
            Ok("It is resumed".to_owned())
        }
    }
}
