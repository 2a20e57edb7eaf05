//! Calls on several messages at once.

use super::*;

impl History {
    pub(super) async fn call_on_many(
        &mut self,
        store: &Store,
        queue: &'static str,
        which: Vec<Index>,
        act: ManyAct,
    ) -> Checked {
        let (time, admin) = (self.time, pgqrs::admin(store));
        let of = match act {
            ManyAct::Cancel | ManyAct::Reschedule(_) => self.world.known(),
            ManyAct::Requeue | ManyAct::DeleteDead => self.world.dead(),
        };
        // Of another queue, if this one has none.
        let of_this = of.iter().find(|(of, _)| *of == queue);
        let Some((queue, _)) = of_this.or(of.first()).copied() else {
            return Ok(());
        };
        let of: Vec<_> = of.iter().filter(|(of, _)| *of == queue).collect();
        // The same one several times, now and then.
        let ids: Vec<MessageId> = which.iter().map(|which| which.get(&of).1).collect();
        let returned = match act {
            ManyAct::Cancel => admin.cancel_many(queue, &ids).await.map(|many| (many, 0)),
            ManyAct::Reschedule(wait) => {
                let days = if wait == Wait::Long { 1 } else { -1 };
                let at = chrono::Utc::now() + TimeDelta::days(days);
                let moved = admin.reschedule_many(queue, &ids, at).await;
                moved.map(|many| (many, 0))
            }
            ManyAct::Requeue => {
                let requeued = admin.requeue_many(queue, &ids).await;
                requeued.map(|requeued| (requeued.back, requeued.held))
            }
            ManyAct::DeleteDead => {
                let deleted = admin.delete_dead_letters(queue, &ids).await;
                deleted.map(|many| (many, 0))
            }
        };
        let ids: BTreeSet<_> = ids.into_iter().collect();
        self.compare(returned, |world| match act {
            ManyAct::Cancel => world.cancel_many(queue, &ids),
            ManyAct::Reschedule(wait) => world.reschedule_many(time, queue, &ids, wait),
            ManyAct::Requeue => world.requeue_many(time, queue, &ids),
            ManyAct::DeleteDead => world.delete_dead(queue, &ids),
        })
        .await
    }
}
