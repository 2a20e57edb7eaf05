//! From a request to its answer: which view it is for, what it costs, the headers.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::{OriginalUri, Query, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::Response,
};

use tokio::time::timeout;

use crate::{
    actions::{self, Allowed},
    api,
    app::App,
    layout::{self, SCRIPT, STYLE, View},
    metrics, path,
    views::{self, Problem},
};

/// Scripts, styles and requests from here alone, whatever is in a payload.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// How long the database may take for a view, with all of its statements.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// An answer, apart from the headers that all have.
#[derive(Debug, Hash)]
pub(crate) struct Rendered {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

impl Rendered {
    pub(crate) fn html(status: StatusCode, body: String) -> Self {
        Self {
            status: status.as_u16(),
            kind: "text/html; charset=utf-8",
            body,
        }
    }
}

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The prefix of all links, without a slash at its end.
    pub(crate) base: String,
    pub(crate) parts: Vec<String>,
    pub(crate) query: HashMap<String, String>,
    pub(crate) allowed: Allowed,
}

impl Asked {
    /// Conditions of a search alone.
    pub(crate) fn with(query: HashMap<String, String>) -> Self {
        Self {
            base: String::new(),
            parts: Vec::new(),
            query,
            allowed: Allowed::default(),
        }
    }

    /// A value of the query; an empty text if it isn't there.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.query.get(name).map_or("", |value| value.trim())
    }
}

pub(crate) async fn respond(
    State(app): State<Arc<App>>,
    OriginalUri(original): OriginalUri,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let uri = &head.uri;
    let base = app.settings.base.clone();
    let base = base.unwrap_or_else(|| {
        let path = original.path();
        let base = path.strip_suffix(uri.path()).unwrap_or(path);
        base.trim_end_matches('/').to_owned()
    });
    let query = Query::<HashMap<String, String>>::try_from_uri(uri);
    let asked = Asked {
        base,
        parts: path::parts(uri.path()),
        query: query.map_or_else(|_| HashMap::new(), |query| query.0),
        allowed: actions::allowed(&app, &head),
    };
    let request = Request::from_parts(head, body);
    let parts: Vec<_> = asked.parts.iter().map(String::as_str).collect();
    match parts[..] {
        ["style.css"] => return asset("text/css; charset=utf-8", STYLE, &request),
        ["script.js"] => return asset("text/javascript; charset=utf-8", SCRIPT, &request),
        ["act", ..] if app.settings.rules.is_some() => {
            return actions::respond(&app, &asked, request).await;
        }
        _ => {}
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let refused = Rendered::html(StatusCode::METHOD_NOT_ALLOWED, String::new());
        return answered(&refused, &request);
    }
    let path = request.uri().path_and_query();
    let path = path.map_or("", |path| path.as_str());
    // What it may do decides which buttons it sees.
    let key = format!("{} {:x} {path}", asked.base, asked.allowed.bits());
    let rendered = app
        .shared(key, async || {
            // A statement that is dropped is cancelled by the server.
            let rendered = timeout(TIME_LIMIT, rendered(&app, &asked)).await;
            rendered.unwrap_or_else(|_| too_slow(&asked))
        })
        .await;
    answered(&rendered, &request)
}

fn too_slow(asked: &Asked) -> Rendered {
    shown(asked, Err(Problem::TooSlow))
}

async fn rendered(app: &App, asked: &Asked) -> Rendered {
    let parts: Vec<_> = asked.parts.iter().map(String::as_str).collect();
    match parts[..] {
        ["metrics"] => return metrics::rendered(app).await,
        ["api", ref parts @ ..] => return api::rendered(app, asked, parts).await,
        _ => {}
    }
    shown(asked, views::view(app, asked, &parts).await)
}

fn shown(asked: &Asked, view: Result<View, Problem>) -> Rendered {
    match view {
        Ok(view) => Rendered::html(StatusCode::OK, layout::page(asked, &view)),
        Err(problem) => {
            let view = View {
                title: problem.title().to_owned(),
                place: "",
                main: views::problem(asked, &problem),
            };
            Rendered::html(problem.status(), layout::page(asked, &view))
        }
    }
}

/// A file that is compiled in. Its link has its hash, so that it is fetched once.
fn asset(kind: &'static str, text: &'static str, request: &Request) -> Response {
    let rendered = Rendered {
        status: 200,
        kind,
        body: text.to_owned(),
    };
    let mut response = answered(&rendered, request);
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, forever);
    response
}

pub(crate) fn hash_of(value: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn answered(rendered: &Rendered, request: &Request) -> Response {
    let tag = format!("\"{}\"", hash_of(rendered));
    let known = request.headers().get(header::IF_NONE_MATCH);
    let is_known = rendered.status == 200 && known.is_some_and(|known| known == tag.as_str());
    let status = if is_known { 304 } else { rendered.status };
    let body = if is_known || request.method() == Method::HEAD {
        Body::empty()
    } else {
        Body::from(rendered.body.clone())
    };
    let mut response = framed(rendered);
    *response.body_mut() = body;
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// A response with the headers that all have.
pub(crate) fn framed(rendered: &Rendered) -> Response {
    let mut response = Response::new(Body::from(rendered.body.clone()));
    *response.status_mut() = StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, rendered.kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        // Kept, and asked for again each time: what is unchanged isn't sent again.
        (header::CACHE_CONTROL, "private, no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Problem {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooSlow => StatusCode::SERVICE_UNAVAILABLE,
            Self::Of(error) => match error {
                pgqrs::Error::QueueNotFound { .. }
                | pgqrs::Error::InvalidQueueName(_)
                | pgqrs::Error::WorkerNotFound { .. }
                | pgqrs::Error::ScheduleNotFound { .. } => StatusCode::NOT_FOUND,
                pgqrs::Error::PermissionDenied { .. } => StatusCode::FORBIDDEN,
                error if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
                pgqrs::Error::Connect(_) => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    pub(crate) fn title(&self) -> &'static str {
        match self.status() {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::FORBIDDEN => "Not permitted",
            StatusCode::SERVICE_UNAVAILABLE => "The database doesn't answer",
            _ => "That failed",
        }
    }
}
