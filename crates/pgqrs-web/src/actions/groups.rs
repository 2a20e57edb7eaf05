//! What operators do with groups.

use pgqrs::Error;

use super::{Action, Target};
use crate::app::App;

pub(super) async fn perform(app: &App, target: &Target) -> Result<String, Error> {
    let (queue, group) = (target.value("queue"), target.value("group"));
    match target.action {
        Action::StopGroup => {
            app.admin.stop_group(queue, group).await?;
            Ok("It is stopped".to_owned())
        }
        Action::ResumeGroup => Ok(if app.admin.resume_group(queue, group).await? {
            "It is resumed".to_owned()
        } else {
            "It isn't stopped any more".to_owned()
        }),
        Action::PurgeGroup => {
            let deleted = app.admin.purge_group(queue, group).await?;
            Ok(format!("Deleted what was parked: {deleted}"))
        }
        _ => {
            app.admin.promote_groups(queue).await?;
            Ok("Promoted".to_owned())
        }
    }
}
