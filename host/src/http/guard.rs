//! Who may ask.
//!
//! For: every request.
//! Promises: a page of another site that points its own name at this machine is refused; a page that
//! knows an output's hash may read it.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses requests whose `Host` is not this server under a loopback name.
pub(super) async fn check_host(State(port): State<u16>, request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(|host| is_ours(host, port)) {
        return (StatusCode::FORBIDDEN, "Forbidden: this server answers to loopback names only")
            .into_response();
    }
    next.run(request).await
}

/// Marks every answer as readable by pages of any origin.
pub(super) async fn allow_every_origin(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn is_ours(host: &str, port: u16) -> bool {
    let Some((name, named_port)) = host.rsplit_once(':') else { return false };
    named_port == port.to_string() && ["127.0.0.1", "localhost", "[::1]"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_with_the_exact_port_are_ours() {
        for host in ["127.0.0.1:47820", "localhost:47820", "[::1]:47820"] {
            assert!(is_ours(host, 47820), "{host}");
        }
        for host in
            ["127.0.0.1", "localhost:80", "evil.example:47820", "127.0.0.1.evil:47820", "::1:47820", ""]
        {
            assert!(!is_ours(host, 47820), "{host}");
        }
    }
}
