//! What all views have in common: the frame around them, with its stylesheet and its script.

use maud::{DOCTYPE, Markup, html};

use crate::respond::{Asked, hash_of};

pub(crate) const STYLE: &str = include_str!("assets/style.css");
pub(crate) const SCRIPT: &str = include_str!("assets/script.js");

/// A view, ready to be framed.
pub(crate) struct View {
    pub(crate) title: String,
    /// The entry of the navigation that it belongs to.
    pub(crate) place: &'static str,
    pub(crate) main: Markup,
}

const PLACES: [(&str, &str); 4] = [
    ("Queues", ""),
    ("Workers", "workers"),
    ("Schedules", "schedules"),
    ("Health", "health"),
];

pub(crate) fn page(asked: &Asked, view: &View) -> String {
    let framed = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (view.title) " · pgqrs" }
                link rel="stylesheet" href=(format!("{}/style.css?{}", asked.base, hash_of(&STYLE)));
                script src=(format!("{}/script.js?{}", asked.base, hash_of(&SCRIPT))) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href=(asked.link(&[])) { "pgqrs" }
                    nav aria-label="Views" {
                        @for (name, path) in PLACES {
                            @let is_here = view.place == name;
                            a href=(asked.link(&path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>()))
                                aria-current=[is_here.then_some("page")] { (name) }
                        }
                        @if asked.allowed.any() {
                            a href=(asked.link(&["actions"]))
                                aria-current=[(view.place == "Actions").then_some("page")] { "Actions" }
                        }
                    }
                    // Of use with the script alone, which shows it.
                    div.live hidden {
                        span #fresh {}
                        button #pause type="button" aria-pressed="false" { "Pause" }
                    }
                }
                p #away role="status" hidden {}
                main #main tabindex="-1" { (view.main) }
            }
        }
    };
    framed.into_string()
}

impl Asked {
    /// A link to a view.
    pub(crate) fn link(&self, parts: &[&str]) -> String {
        let parts: Vec<_> = parts
            .iter()
            .map(|part| crate::path::encoded(part))
            .collect();
        if parts.is_empty() && !self.base.is_empty() {
            // A prefix alone has no slash at its end.
            return self.base.clone();
        }
        format!("{}/{}", self.base, parts.join("/"))
    }
}
