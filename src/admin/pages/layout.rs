//! What every page has around it, and the files that it loads.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use sha2::{Digest as _, Sha256};

use crate::admin::AdminState;
use crate::admin::pages::session::{CSRF_FIELD, Visitor};
use crate::admin::problem::AdminError;

/// The titles of the pages that every page leads to.
pub(crate) const FLAGS_TITLE: &str = "Flags";
pub(crate) const HISTORY_TITLE: &str = "History";

/// Nothing from anywhere else, and nothing inside the page that could have been put there by somebody else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What browsers are told with every page and file.
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    // With `no-referrer`, browsers would send forms with the origin `null`.
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// A file of the dashboard, part of the binary.
#[derive(Debug)]
pub(crate) struct Asset {
    /// Its path: another one for other content.
    pub(crate) path: String,
    media_type: &'static str,
    content: &'static str,
}

impl Asset {
    fn new(name: &str, kind: &str, media_type: &'static str, content: &'static str) -> Self {
        let hash: String = Sha256::digest(content).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self { path: format!("/assets/{name}-{hash}.{kind}"), media_type, content }
    }
}

/// The files that pages load.
#[derive(Debug)]
pub(crate) struct Assets {
    style: Asset,
    script: Asset,
    icon: Asset,
}

impl Default for Assets {
    fn default() -> Self {
        Self {
            style: Asset::new("dashboard", "css", "text/css; charset=utf-8", include_str!("dashboard.css")),
            script: Asset::new("dashboard", "js", "text/javascript; charset=utf-8", include_str!("dashboard.js")),
            icon: Asset::new("icon", "svg", "image/svg+xml", include_str!("icon.svg")),
        }
    }
}

impl Assets {
    /// The file at `path`, which may be kept for ever.
    pub(crate) fn response(&self, path: &str) -> Option<Response> {
        let found = [&self.style, &self.script, &self.icon].into_iter().find(|asset| asset.path == path)?;
        let headers = [(CONTENT_TYPE, found.media_type), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
        Some((headers, found.content).into_response())
    }
}

/// A page before it has anything around it.
#[derive(Debug)]
pub(crate) struct Page {
    status: StatusCode,
    title: String,
    body: Markup,
    is_live: bool,
}

impl Page {
    /// A page that is as it is.
    pub(crate) fn new(title: impl Into<String>, body: Markup) -> Self {
        Self { status: StatusCode::OK, title: title.into(), body, is_live: false }
    }

    /// A page that is kept up to date.
    pub(crate) fn live(title: impl Into<String>, body: Markup) -> Self {
        Self { is_live: true, ..Self::new(title, body) }
    }

    /// The same with another status.
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The page as it is sent.
    pub(crate) fn into_response(self, state: &AdminState, visitor: Option<&Visitor>) -> Response {
        let assets = &state.pages.assets;
        let instance = state.rollouts.instance();
        let document = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " · Tidegate" }
                    link rel="icon" type="image/svg+xml" href=(assets.icon.path);
                    link rel="stylesheet" href=(assets.style.path);
                    script src=(assets.script.path) defer {}
                }
                body data-live=[self.is_live.then_some("on")] {
                    a.skip href="#main" { "Skip to content" }
                    header.top {
                        a.brand href="/" {
                            img src=(assets.icon.path) alt="" width="22" height="22";
                            "Tidegate"
                        }
                        @if let Some(visitor) = visitor {
                            nav aria-label="Pages" {
                                a href="/" aria-current=[(self.title == FLAGS_TITLE).then_some("page")] { (FLAGS_TITLE) }
                                a href="/history" aria-current=[(self.title == HISTORY_TITLE).then_some("page")] { (HISTORY_TITLE) }
                            }
                            span #connection .faint hidden {}
                            (identity(visitor))
                        }
                    }
                    main #main tabindex="-1" {
                        @if visitor.is_some() {
                            div #problems data-part {
                                @for problem in state.problems() {
                                    p.alert { (sentence(&problem)) }
                                }
                            }
                        }
                        (self.body)
                    }
                    p #announcer .unseen aria-live="polite" {}
                    dialog #dialog aria-labelledby="confirm-title" {}
                    @if visitor.is_some() {
                        footer.faint { (instance.name) " · Tidegate " (instance.version) }
                    }
                }
            }
        };
        let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")];
        (self.status, headers, document.into_string()).into_response()
    }
}

fn identity(visitor: &Visitor) -> Markup {
    html! {
        div.who {
            @if visitor.has_token {
                span { b { (visitor.actor.name) } " " span.faint { (visitor.role) } }
                form method="post" action="/logout" {
                    (csrf(visitor))
                    button.small type="submit" { "Log out" }
                }
            } @else {
                span.faint title="Without tokens, the admin API asks nobody who they are and listens on loopback only." {
                    (visitor.actor.name)
                }
            }
        }
    }
}

/// The field that makes a form ours.
pub(crate) fn csrf(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name=(CSRF_FIELD) value=(visitor.csrf); }
}

/// Something that went wrong, as a page.
pub(crate) fn refused(state: &AdminState, visitor: Option<&Visitor>, error: &AdminError) -> Response {
    let (status, _, title) = error.status();
    let body = html! {
        section.card.narrow {
            h1 { (title) }
            p.alert role="alert" { (sentence(&error.detail())) }
            p { a.button href="/" { "Back to the flags" } }
        }
    };
    let mut response = Page::new(title, body).with_status(status).into_response(state, visitor);
    error.add_headers(&mut response);
    response
}

/// An error's text, which begins in lower case and has no full stop, as a sentence.
pub(crate) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}

/// Adds what browsers are told with every page and file.
pub(crate) async fn harden(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
