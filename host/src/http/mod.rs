//! The HTTP server: notebook outputs by their hash, and a sign of life.
//!
//! For: browsers and other clients that show outputs; only on 127.0.0.1.
//! Promises: serves nobody that was led here under another host's name (DNS rebinding); content never
//! changes under its address; who connects and says nothing keeps nobody from anything else.

mod blob;
mod connections;
mod guard;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use self::connections::Limited;
use crate::daemon::Daemon;

/// Preferred port (wire contract, section 6.3).
const PORT: u16 = 47820;
/// Ports tried one after the other before any free one is taken.
const PORTS_TRIED: u16 = 10;

/// Binds the preferred port, one of the next, or any.
///
/// # Errors
/// When not even a free port can be had.
pub async fn bind() -> std::io::Result<TcpListener> {
    for port in (PORT..=PORT + PORTS_TRIED).chain([0]) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if port == 0 => return Err(error),
            Err(_) => {}
        }
    }
    Err(std::io::ErrorKind::AddrInUse.into())
}

/// Serves until the daemon closes its connections.
///
/// # Errors
/// Those of the listener.
pub async fn serve(listener: TcpListener, daemon: Arc<Daemon>) -> std::io::Result<()> {
    let port = listener.local_addr()?.port();
    let disconnect = daemon.disconnect.clone();
    let app = Router::new()
        .route("/health", get(|| async { "OK" }).fallback(method_not_allowed))
        .route("/blob/{hash}", get(blob::get).fallback(method_not_allowed))
        .fallback(not_found)
        .with_state(daemon)
        .layer(DefaultBodyLimit::max(0))
        .layer(from_fn(guard::allow_every_origin))
        .layer(from_fn_with_state(port, guard::check_host));
    axum::serve(Limited::new(listener), app)
        .with_graceful_shutdown(async move { disconnect.cancelled().await })
        .await
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "Not Found").into_response()
}

async fn method_not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], "Method Not Allowed").into_response()
}
