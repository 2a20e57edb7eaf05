//! The settings of the page, and its router.

use std::{collections::BTreeSet, fmt, sync::Arc};

use axum::{Router, http::request::Parts};
use pgqrs::state::AsStore;

use crate::{
    actions::{Action, Rules},
    app::App,
    respond,
};

/// Returns the page as a router, with the default settings: it shows everything and changes nothing.
///
/// Mount it under any prefix with [`Router::nest`]. Its links follow the prefix.
pub fn router<S: AsStore + ?Sized>(store: &S) -> Router {
    page(store).router()
}

/// Returns the page, for settings; [`Page::router`] makes the router of it.
///
/// # Example
/// ```no_run
/// # fn example(store: pgqrs::Store) -> axum::Router {
/// pgqrs_web::page(&store)
///     .hide_payloads(["cards", "letters"])
///     .trace_link("https://jaeger.example.com/trace/{trace_id}")
///     .router()
/// # }
/// ```
pub fn page<S: AsStore + ?Sized>(store: &S) -> Page {
    Page {
        store: store.as_store().clone(),
        settings: Settings::default(),
    }
}

/// The page with its settings; made by [`page`].
///
/// | setting | meaning | default |
/// |---|---|---|
/// | [`actions`](Self::actions) | what a request may change | nothing |
/// | [`operator`](Self::operator) | whose request it is, for the log | `unknown` |
/// | [`hide_payloads`](Self::hide_payloads) | queues whose payloads nobody sees | those that are sensitive |
/// | [`trace_link`](Self::trace_link) | where a message's trace can be looked at | none: its id is shown |
/// | [`base`](Self::base) | the prefix in links, if a proxy removes it | that of the request |
#[derive(Clone)]
#[must_use = "it is a page once `router()` is called"]
pub struct Page {
    store: pgqrs::Store,
    settings: Settings,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) hidden: BTreeSet<String>,
    pub(crate) trace_link: Option<String>,
    pub(crate) base: Option<String>,
    pub(crate) rules: Option<Rules>,
}

impl Page {
    /// Queues whose payloads are shown to nobody, neither on the page nor as JSON, besides those that are
    /// [`sensitive`](pgqrs::QueueOptions). Their payloads can't be searched, since an answer would tell what is in them.
    pub fn hide_payloads<I: IntoIterator<Item: Into<String>>>(mut self, queues: I) -> Self {
        let queues = queues.into_iter().map(Into::into);
        self.settings.hidden.extend(queues);
        self
    }

    /// Where a trace can be looked at: a link in which `{trace_id}` stands for the trace's id.
    pub fn trace_link(mut self, link: impl Into<String>) -> Self {
        self.settings.trace_link = Some(link.into());
        self
    }

    /// The prefix in links, such as `/ops/queues`, if a proxy removes it from the path before the request arrives here.
    /// Otherwise it is known from the request.
    pub fn base(mut self, base: impl Into<String>) -> Self {
        let base: String = base.into();
        self.settings.base = Some(base.trim_end_matches('/').to_owned());
        self
    }

    /// Lets the page change things: decides, for each request and action, whether it is allowed. By default, nothing is.
    ///
    /// It is asked again when the action is done, with the request that does it. What the request carries is up to your
    /// own layers: a login's extension, or the header of a proxy. Each action is a form that asks first, and is bound to
    /// the browser that it was sent to.
    ///
    /// # Example
    /// ```no_run
    /// # fn example(store: pgqrs::Store) -> axum::Router {
    /// use pgqrs_web::Action;
    ///
    /// pgqrs_web::page(&store)
    ///     .actions(|request, action| {
    ///         let is_admin = request.headers.get("x-role").is_some_and(|role| role == "admin");
    ///         is_admin || action == Action::Requeue
    ///     })
    ///     .operator(|request| {
    ///         let user = request.headers.get("x-user").and_then(|user| user.to_str().ok());
    ///         user.unwrap_or("unknown").to_owned()
    ///     })
    ///     .router()
    /// # }
    /// ```
    pub fn actions(
        mut self,
        decide: impl Fn(&Parts, Action) -> bool + Send + Sync + 'static,
    ) -> Self {
        let mut rules = self.settings.rules.take().unwrap_or_default();
        rules.decide = Arc::new(decide);
        self.settings.rules = Some(rules);
        self
    }

    /// Says whose a request is: a name for the log of actions. It is `unknown` by default.
    pub fn operator(mut self, operator: impl Fn(&Parts) -> String + Send + Sync + 'static) -> Self {
        let mut rules = self.settings.rules.take().unwrap_or_default();
        rules.operator = Arc::new(operator);
        self.settings.rules = Some(rules);
        self
    }

    /// Returns the router.
    pub fn router(self) -> Router {
        let app = Arc::new(App::new(&self.store, self.settings));
        Router::new().fallback(respond::respond).with_state(app)
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
