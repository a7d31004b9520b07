//! The HTTP endpoint of links that unsubscribe (RFC 8058), behind a proxy or with its own certificate.
//!
//! POST unsubscribes whom the link's token names, GET asks first, on a page or by a redirection to one; a POST is never redirected
//! (RFC 8058 §3.1). Promises: a request changes something only with a token that we made; the answer 200 comes when the change is on the
//! disk; connections, also of one client, the time and the size of a request are bounded; nothing of a request is shown or logged. Does
//! not: ask for cookies or logins, as the RFC wants it.

mod request;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::request::{Asked, BODY_BYTES_MAX, Page};
use super::config::UnsubscribeSettings;
use super::http::{self, Accept, Accepted, Limits};
use crate::events::metric;
use crate::feedback::desk::{Desk, Unsubscribed, Way};
use crate::net::{BoxFuture, BoxStream, tls_server};
use crate::policy::routing::check_address;

/// Clients may come from anywhere; a proxy's connections are counted together only.
const LIMITS: Limits = Limits { connections_max: 512, per_client_max: 32 };
/// A body that does not come within this time is none.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// When a mail program may ask again where the store does not answer.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("60");
/// Of every page: nothing is kept, loaded, framed or passed on.
const HEADERS: [(header::HeaderName, HeaderValue); 6] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
        ),
    ),
    (header::HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex")),
];

/// What a reload changes.
#[derive(Clone, Default)]
pub(super) struct Live {
    tls: Option<Arc<ServerConfig>>,
    page: Option<Arc<str>>,
}

impl Live {
    /// Reads the certificate. Blocks shortly; the error is a sentence for the administrator.
    pub(super) fn load(settings: &UnsubscribeSettings) -> Result<Live, String> {
        let load = |files: &crate::reception::settings::CertificateFiles| {
            tls_server::load_http(&files.certificate, &files.key).map_err(|error| format!("[unsubscribe]: {error}"))
        };
        Ok(Live { tls: settings.tls.as_ref().map(load).transpose()?, page: settings.page.clone() })
    }
}

/// A bound listener; nothing is served yet.
pub(super) struct Endpoint {
    listener: TcpListener,
    live: Arc<ArcSwap<Live>>,
}

impl Endpoint {
    /// Binds the address, if there is one. Needs a tokio runtime; the error is a sentence for the administrator.
    pub(super) fn bind(settings: &UnsubscribeSettings, live: &Arc<ArcSwap<Live>>) -> Result<Option<Endpoint>, String> {
        let Some(address) = settings.address else { return Ok(None) };
        let bound = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let listener = bound.map_err(|error| format!("[unsubscribe] cannot listen on {address}: {error}"))?;
        let local = listener.local_addr().unwrap_or(address);
        tracing::info!(listener = "unsubscribe", address = %local, "listening");
        Ok(Some(Endpoint { listener, live: Arc::clone(live) }))
    }

    /// Serves until `stop` is cancelled.
    pub(super) async fn serve(self, desk: Arc<Desk>, stop: CancellationToken) {
        let router = Router::new().fallback(answer).with_state(Links { desk, live: Arc::clone(&self.live) });
        http::serve(self, router, LIMITS, stop).await;
    }
}

impl Accept for Endpoint {
    type Stream = BoxStream;
    type Opening = BoxFuture<'static, io::Result<BoxStream>>;

    async fn accept(&mut self) -> io::Result<Option<Accepted<Self::Opening>>> {
        let (stream, client) = self.listener.accept().await?;
        let tls = self.live.load().tls.clone();
        let opening: Self::Opening = Box::pin(async move {
            match tls {
                Some(tls) => tls_server::accept(tls, stream).await,
                None => Ok(Box::new(stream) as BoxStream),
            }
        });
        Ok(Some(Accepted { opening, client: counted(client.ip()) }))
    }
}

/// Private addresses are those of proxies, which speak for many.
fn counted(client: IpAddr) -> Option<IpAddr> {
    check_address(client, &[], false).is_ok().then_some(client)
}

#[derive(Clone)]
struct Links {
    desk: Arc<Desk>,
    live: Arc<ArcSwap<Live>>,
}

async fn answer(State(links): State<Links>, request: Request) -> Response {
    let Some(asked) = request::asked(request.method()) else {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD, POST")]).into_response();
    };
    let text = request::token(request.uri()).map(str::to_owned);
    let Some((text, token)) = text.and_then(|text| links.desk.unsubscribe_token(&text).map(|token| (text, token)))
    else {
        return show(Page::Unknown);
    };
    if asked == Asked::Look {
        return match &links.live.load().page {
            Some(page) => moved(page, &text),
            None => show(Page::Confirm),
        };
    }
    if !body(request.into_body()).await.is_some_and(|body| request::is_one_click(&body)) {
        return show(Page::Bad);
    }
    // To its end, whatever becomes of the connection.
    let task = tokio::spawn(async move { links.desk.unsubscribe(token, Way::OneClick).await });
    match task.await {
        Ok(Ok(Unsubscribed::Done)) => show(Page::Done),
        Ok(Ok(Unsubscribed::Unknown)) => show(Page::Unknown),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a request to unsubscribe is refused for now");
            show(Page::Later)
        }
        Err(error) => {
            tracing::error!(%error, "a request to unsubscribe broke");
            show(Page::Later)
        }
    }
}

async fn body(body: Body) -> Option<axum::body::Bytes> {
    tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await.ok()?.ok()
}

fn show(page: Page) -> Response {
    metrics::counter!(metric::UNSUBSCRIBE_REQUESTS, "outcome" => page.outcome()).increment(1);
    let status = StatusCode::from_u16(page.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, HEADERS, page.html()).into_response();
    if page == Page::Later {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// To the operator's own page, which posts the token back.
fn moved(page: &str, token: &str) -> Response {
    metrics::counter!(metric::UNSUBSCRIBE_REQUESTS, "outcome" => Page::Confirm.outcome()).increment(1);
    let to = format!("{page}{token}");
    let headers = [(header::LOCATION, to), (header::CACHE_CONTROL, "no-store".to_owned())];
    (StatusCode::SEE_OTHER, headers).into_response()
}
