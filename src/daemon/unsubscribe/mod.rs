//! The HTTP endpoint of links that unsubscribe (RFC 8058), behind a proxy or with its own certificate.
//!
//! POST unsubscribes whom the link's token names, GET asks first, on a page or by a redirection to one; a POST is never redirected
//! (RFC 8058 §3.1). Promises: a request changes something only with a token that we made; the answer 200 comes when the change is on the
//! disk; connections, also of one client, the time and the size of a request, and the requests that the store works on, are bounded; nothing of a request is shown or logged. Does
//! not: ask for cookies or logins, as the RFC wants it.

mod request;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use self::request::{Asked, BODY_BYTES_MAX, Page};
use super::config::UnsubscribeSettings;
use super::http::{self, Accept, Accepted, Limits};
use crate::events::metric;
use crate::feedback::desk::{Desk, Unsubscribed, Way};
use crate::net::{BoxFuture, BoxStream, tls_server};
use crate::policy::routing::check_address;
use crate::policy::token::TokenContent;

/// Clients may come from anywhere; a proxy's connections are counted together only.
const LIMITS: Limits =
    Limits { connections_max: 512, per_client_max: 32, single_request_max: Some(Duration::from_secs(40)) };
/// Requests that the store works on at the same time. Above, or longer than [`ANSWER_TIMEOUT`]: 503.
const WORKING_MAX: usize = 64;
/// See [`WORKING_MAX`].
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A body that does not come within this time is none.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// When a mail program may ask again where the store does not answer.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("60");
/// What may be asked.
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
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
    proxies: Vec<IpNet>,
}

impl Live {
    /// Reads the certificate. Blocks shortly; the error is a sentence for the administrator.
    pub(super) fn load(settings: &UnsubscribeSettings) -> Result<Live, String> {
        let load = |files: &crate::reception::settings::CertificateFiles| {
            tls_server::load_http(&files.certificate, &files.key).map_err(|error| format!("[unsubscribe]: {error}"))
        };
        Ok(Live {
            tls: settings.tls.as_ref().map(load).transpose()?,
            page: settings.page.clone(),
            proxies: settings.proxies.clone(),
        })
    }
}

/// What the daemon has of it: nothing but settings where no address is configured.
pub(super) struct Links {
    live: Arc<ArcSwap<Live>>,
    endpoint: Mutex<Option<Endpoint>>,
    task: Mutex<Option<JoinHandle<()>>>,
    alive: OnceLock<AbortHandle>,
}

impl Links {
    /// Reads the certificate and binds the address. Needs a tokio runtime; the error is a sentence for the administrator.
    pub(super) fn open(settings: &UnsubscribeSettings) -> Result<Links, String> {
        let live = Arc::new(ArcSwap::from_pointee(Live::load(settings)?));
        let endpoint = Mutex::new(Endpoint::bind(settings, &live)?);
        Ok(Links { live, endpoint, task: Mutex::default(), alive: OnceLock::new() })
    }

    /// Begins to answer, until `stop` is cancelled.
    pub(super) fn serve(&self, desk: Arc<Desk>, stop: &CancellationToken) {
        if let Some(endpoint) = lock(&self.endpoint).take() {
            let task = tokio::spawn(endpoint.serve(desk, stop.clone()));
            self.alive.get_or_init(|| task.abort_handle());
            *lock(&self.task) = Some(task);
        }
    }

    /// What a reload brings.
    pub(super) fn adopt(&self, live: Live) {
        self.live.store(Arc::new(live));
    }

    /// It answered, and does no more.
    pub(super) fn is_gone(&self) -> bool {
        self.alive.get().is_some_and(AbortHandle::is_finished)
    }

    /// Waits until no connection is left, after it was stopped.
    pub(super) async fn ended(&self) {
        let task = lock(&self.task).take();
        if let Some(task) = task {
            // An error is a panic, which is in the log.
            let _ = task.await;
        }
    }
}

/// Each value is valid by itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bound listener; nothing is served yet.
struct Endpoint {
    listener: TcpListener,
    live: Arc<ArcSwap<Live>>,
}

impl Endpoint {
    fn bind(settings: &UnsubscribeSettings, live: &Arc<ArcSwap<Live>>) -> Result<Option<Endpoint>, String> {
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

    async fn serve(self, desk: Arc<Desk>, stop: CancellationToken) {
        let working = Arc::new(Semaphore::new(WORKING_MAX));
        let router =
            Router::new().fallback(answer).with_state(Answering { desk, live: Arc::clone(&self.live), working });
        http::serve(self, router, LIMITS, stop).await;
    }
}

impl Accept for Endpoint {
    type Stream = BoxStream;
    type Opening = BoxFuture<'static, io::Result<BoxStream>>;

    async fn accept(&mut self) -> io::Result<Option<Accepted<Self::Opening>>> {
        let (stream, peer) = self.listener.accept().await?;
        let live = self.live.load_full();
        let client = counted(peer.ip(), &live.proxies);
        let opening: Self::Opening = Box::pin(async move {
            match live.tls.clone() {
                Some(tls) => tls_server::accept(tls, stream).await,
                None => Ok(Box::new(stream) as BoxStream),
            }
        });
        Ok(Some(Accepted { opening, client }))
    }
}

/// By whom a connection is counted. Private addresses are those of proxies, which speak for many.
fn counted(client: IpAddr, proxies: &[IpNet]) -> Option<IpAddr> {
    let client = client.to_canonical();
    let is_proxy =
        check_address(client, &[], false).is_err() || proxies.iter().any(|network| network.contains(&client));
    (!is_proxy).then_some(client)
}

#[derive(Clone)]
struct Answering {
    desk: Arc<Desk>,
    live: Arc<ArcSwap<Live>>,
    working: Arc<Semaphore>,
}

async fn answer(State(links): State<Answering>, request: Request) -> Response {
    let Some(asked) = request::asked(request.method()) else { return show(Page::NotAllowed) };
    let text = request::token(request.uri()).map(str::to_owned);
    let Some((text, token)) = text.and_then(|text| links.desk.unsubscribe_token(&text).map(|token| (text, token)))
    else {
        return show(Page::Unknown);
    };
    if asked == Asked::Unsubscribe && !body(request.into_body()).await.is_some_and(|body| request::is_one_click(&body))
    {
        return show(Page::Bad);
    }
    let page = links.work(asked, token).await;
    let own_page = links.live.load().page.clone();
    match own_page.filter(|_| page == Page::Confirm) {
        Some(own) => moved(&own, &text),
        None => show(page),
    }
}

impl Answering {
    /// What the store says. It works to its end, whatever becomes of the connection.
    async fn work(&self, asked: Asked, token: TokenContent) -> Page {
        let Ok(permit) = Arc::clone(&self.working).try_acquire_owned() else { return Page::Later };
        let desk = Arc::clone(&self.desk);
        let task = tokio::spawn(async move {
            let page = match asked {
                Asked::Look => {
                    desk.can_unsubscribe(token).await.map(|can| can.map_or_else(page_of, |()| Page::Confirm))
                }
                Asked::Unsubscribe => desk.unsubscribe(token, Way::OneClick).await.map(page_of),
            };
            drop(permit);
            page
        });
        match tokio::time::timeout(ANSWER_TIMEOUT, task).await {
            Ok(Ok(Ok(page))) => page,
            Ok(Ok(Err(error))) => {
                tracing::warn!(%error, "a request to unsubscribe is refused for now");
                Page::Later
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a request to unsubscribe broke");
                Page::Later
            }
            Err(_) => {
                tracing::warn!("the store is too slow for a request to unsubscribe");
                Page::Later
            }
        }
    }
}

fn page_of(unsubscribed: Unsubscribed) -> Page {
    match unsubscribed {
        Unsubscribed::Done => Page::Done,
        Unsubscribed::Unknown => Page::Unknown,
        Unsubscribed::Damaged => Page::Later,
    }
}

async fn body(body: Body) -> Option<axum::body::Bytes> {
    tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await.ok()?.ok()
}

fn show(page: Page) -> Response {
    let mut response = (page.status(), HEADERS, page.html()).into_response();
    let headers = response.headers_mut();
    match page {
        Page::Later => drop(headers.insert(header::RETRY_AFTER, RETRY_AFTER)),
        Page::NotAllowed => drop(headers.insert(header::ALLOW, ALLOWED)),
        _ => {}
    }
    counted_as(page, response)
}

/// To the operator's own page, which posts the token back.
fn moved(page: &str, token: &str) -> Response {
    let to = [(header::LOCATION, format!("{page}{token}"))];
    counted_as(Page::Confirm, (StatusCode::SEE_OTHER, HEADERS, to).into_response())
}

fn counted_as(page: Page, response: Response) -> Response {
    metrics::counter!(metric::UNSUBSCRIBE_REQUESTS, "outcome" => page.outcome()).increment(1);
    response
}
