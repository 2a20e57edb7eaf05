//! Rates of queues and of groups, and what ends by itself.

use pgqrs::{Groups, Rate};

use super::*;

/// One attempt, and then none for as long as a test runs.
const RATE: Rate = Rate::new(1, LONG);

impl History {
    pub(super) async fn call_about_rates(&mut self, store: &Store, call: Call) -> Checked {
        let admin = pgqrs::admin(store);
        match call {
            Call::Rate(queue, is_set) => {
                let options = QueueOptions::builder().rate(is_set.then_some(RATE));
                let returned = admin.configure_queue(queue, options.build()).await;
                self.compare(returned.map(drop), |world| world.rate(queue, is_set))
                    .await
            }
            Call::RateGroups(queue, is_set) => {
                let groups = Groups::builder().rate(is_set.then_some(RATE)).build();
                let options = QueueOptions::builder().groups(groups).build();
                let returned = admin.configure_queue(queue, options).await;
                self.compare(returned.map(drop), |world| world.rate_groups(queue, is_set))
                    .await
            }
            Call::RateGroup(queue, group, is_set) => {
                let rate = is_set.then_some(RATE);
                let key = group.to_string();
                let returned = admin.set_group_rate(queue, &key, rate).await;
                self.compare(returned, |world| world.rate_group(queue, group, is_set))
                    .await
            }
            Call::TokenComes(which) => {
                let empty = self.world.empty_buckets();
                if empty.is_empty() {
                    return Ok(());
                }
                let bucket = *which.get(&empty);
                let (queue, group) = names(bucket);
                let comes = match bucket {
                    Bucket::Queue(_) => {
                        "update pgqrs.rates r set arrives_at = now() from pgqrs.queues q
                         where q.id = r.queue_id and q.name = $1 and $2::text is null"
                    }
                    Bucket::Group(..) => {
                        "update pgqrs.group_rates r set arrives_at = now() from pgqrs.queues q
                         where q.id = r.queue_id and q.name = $1 and r.key = $2"
                    }
                };
                self.calm().await?;
                let comes = sqlx::query(comes).bind(queue).bind(group);
                comes.execute(&self.direct).await.map_err(failed)?;
                self.compare(Ok(()), |world| {
                    world.token_comes(bucket);
                    Ok(())
                })
                .await
            }
            Call::SlowDownEnds(which) => {
                let slowed = self.world.slowed();
                if slowed.is_empty() {
                    return Ok(());
                }
                let bucket = *which.get(&slowed);
                let (queue, group) = names(bucket);
                let ends = match bucket {
                    Bucket::Queue(_) => {
                        "update pgqrs.queues set slowed_until = now() where name = $1 and $2::text is null"
                    }
                    Bucket::Group(..) => {
                        "update pgqrs.group_rates r set slowed_until = now() from pgqrs.queues q
                         where q.id = r.queue_id and q.name = $1 and r.key = $2"
                    }
                };
                self.calm().await?;
                let ends = sqlx::query(ends).bind(queue).bind(group);
                ends.execute(&self.direct).await.map_err(failed)?;
                self.compare(Ok(()), |world| {
                    world.slow_down_ends(bucket);
                    Ok(())
                })
                .await
            }
            _ => Ok(()),
        }
    }
}

fn names(bucket: Bucket) -> (&'static str, Option<String>) {
    match bucket {
        Bucket::Queue(queue) => (queue, None),
        Bucket::Group(queue, group) => (queue, Some(group.to_string())),
    }
}
