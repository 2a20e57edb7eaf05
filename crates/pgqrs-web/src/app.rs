//! What all requests share: the store's administrative calls, what was read for others a moment ago, the history.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use pgqrs::{Admin, QueueInfo};
use sha2::{Digest, Sha256};

use crate::{actions::Log, respond::Rendered, sample::History, settings::Settings};

/// How long an answer is also that of others.
const SHARED_FOR: Duration = Duration::from_secs(2);
/// From this number of answers on, old ones are removed.
const MANY: usize = 256;

pub(crate) struct App {
    pub(crate) admin: Admin,
    pub(crate) settings: Settings,
    pub(crate) history: Mutex<History>,
    answers: Mutex<HashMap<String, Arc<Slot>>>,
    pub(crate) log: Log,
    /// Of this process: what tokens of forms are made with.
    secret: [u8; 32],
}

/// An answer that requests wait for while the first of them makes it.
type Slot = tokio::sync::Mutex<Option<Answer>>;

struct Answer {
    at: Instant,
    rendered: Arc<Rendered>,
}

impl App {
    pub(crate) fn new(store: &pgqrs::Store, settings: Settings) -> Self {
        Self {
            admin: pgqrs::admin(store),
            settings,
            history: Mutex::default(),
            answers: Mutex::default(),
            log: Log::default(),
            secret: rand::random(),
        }
    }

    /// Whether nobody sees the queue's payloads: the queue says so, or the page's settings.
    pub(crate) fn hides(&self, info: &QueueInfo) -> bool {
        info.sensitive || self.settings.hidden.contains(info.name.as_str())
    }

    /// The same, of a queue by its name.
    pub(crate) async fn hides_in(&self, queue: &str) -> pgqrs::Result<bool> {
        Ok(self.hides(&self.admin.queue(queue).await?))
    }

    /// Forgets what was read, since something has changed.
    pub(crate) fn forget(&self) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.clear();
    }

    /// The token of a browser's forms: nobody else can make it.
    pub(crate) fn token(&self, session: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update(session);
        hash.update(self.secret);
        hex(&hash.finalize())
    }

    /// A name for a browser that has none yet.
    pub(crate) fn new_session(&self) -> String {
        hex(&rand::random::<[u8; 16]>())
    }

    /// The answer for a key, which is made at most once in [`SHARED_FOR`].
    pub(crate) async fn shared(
        &self,
        key: String,
        make: impl AsyncFnOnce() -> Rendered,
    ) -> Arc<Rendered> {
        let slot = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.len() > MANY {
                // Those that are locked are just being made.
                answers.retain(|_, slot| slot.try_lock().map_or(true, |answer| is_fresh(&answer)));
            }
            Arc::clone(answers.entry(key).or_default())
        };
        let mut answer = slot.lock().await;
        if let Some(answer) = answer.as_ref().filter(|answer| answer.is_fresh()) {
            return Arc::clone(&answer.rendered);
        }
        let rendered = Arc::new(make().await);
        *answer = Some(Answer {
            at: Instant::now(),
            rendered: Arc::clone(&rendered),
        });
        rendered
    }
}

impl Answer {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < SHARED_FOR
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_fresh(answer: &Option<Answer>) -> bool {
    answer.as_ref().is_some_and(Answer::is_fresh)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn rendered(body: &str) -> Rendered {
        Rendered {
            status: 200,
            kind: "text/plain",
            body: body.to_owned(),
        }
    }

    #[tokio::test]
    async fn those_who_ask_for_the_same_at_once_cost_what_one_does() {
        let pool = pgqrs::sqlx::PgPool::connect_lazy("postgres://localhost/none").expect("a URL");
        let app = Arc::new(App::new(&pgqrs::Store::from(pool), Settings::default()));
        let made = Arc::new(AtomicUsize::new(0));
        let asking = (0..20).map(|_| {
            let (app, made) = (Arc::clone(&app), Arc::clone(&made));
            tokio::spawn(async move {
                let answer = app.shared("a".to_owned(), async || {
                    tokio::task::yield_now().await;
                    rendered(&made.fetch_add(1, Ordering::SeqCst).to_string())
                });
                answer.await.body.clone()
            })
        });
        for answer in asking.collect::<Vec<_>>() {
            assert_eq!(answer.await.expect("no panic"), "0");
        }
        let other = app.shared("b".to_owned(), async || rendered("other")).await;
        assert_eq!(other.body, "other");
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn old_answers_are_removed() {
        let pool = pgqrs::sqlx::PgPool::connect_lazy("postgres://localhost/none").expect("a URL");
        let app = App::new(&pgqrs::Store::from(pool), Settings::default());
        for n in 0..10 * MANY {
            app.shared(n.to_string(), async || rendered("")).await;
            let mut answers = app.answers.lock().expect("not poisoned");
            for slot in answers.values_mut() {
                if let Some(answer) = slot.try_lock().expect("nobody waits").as_mut() {
                    answer.at -= SHARED_FOR;
                }
            }
        }
        assert!(app.answers.lock().expect("not poisoned").len() <= MANY + 1);
    }
}
