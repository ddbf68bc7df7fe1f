//! A package index, as far as one file of the `uv` project goes.
//!
//! For: finding and fetching the pinned wheel from the index the user's other tools use.
//! Promises: proxies and certificates of the environment are honoured; credentials in an index URL are
//! sent and never shown. An index is not trusted: whoever fetches compares the checksum.

use std::env;
use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};
use url::Url;

/// The index that Python tools use unless told otherwise.
const PUBLIC_INDEX: &str = "https://pypi.org/simple";

/// Variables that name another index, in uv's order, then pip's.
const INDEX_VARIABLES: [&str; 3] = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"];

/// JSON if the index can, HTML if it must (PEP 691).
const ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01";

/// Longest silence of a server, to connect and between two reads.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest project page. The public index needs about 3 MiB for uv.
const PAGE_BYTES: u64 = 64 << 20;

/// The index URL the environment asks for.
pub(crate) fn from_environment() -> String {
    let named = INDEX_VARIABLES.iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
    named.unwrap_or_else(|| PUBLIC_INDEX.to_owned())
}

/// Why an index did not deliver.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("`{0}` is not the URL of a package index")]
    Url(String),
    #[error("could not read {url}: {source}")]
    Http { url: String, source: ureq::Error },
    #[error("{url} does not list {file}")]
    NotListed { url: String, file: &'static str },
}

/// A client of one index.
pub(crate) struct Index {
    agent: Agent,
    /// Ends with a slash.
    base: Url,
}

impl Index {
    /// `url` may have uv's form `name=https://...`.
    pub(crate) fn new(url: &str) -> Result<Self, IndexError> {
        let address = match url.split_once('=') {
            Some((name, address)) if !name.contains(':') => address,
            _ => url,
        };
        let wrong =
            || IndexError::Url(Url::parse(address).map_or_else(|_| "?".to_owned(), |url| shown(&url)));
        let base = Url::parse(&format!("{}/", address.trim_end_matches('/'))).map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(wrong());
        }
        // Proxies are read from the environment by default.
        let config = Agent::config_builder()
            .timeout_connect(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .tls_config(TlsConfig::builder().root_certs(root_certificates()).build())
            .build();
        Ok(Self { agent: config.new_agent(), base })
    }

    /// Where `file` of the project `uv` can be fetched.
    pub(crate) fn locate(&self, file: &'static str) -> Result<Url, IndexError> {
        let page = self.base.join("uv/").map_err(|_| IndexError::Url(shown(&self.base)))?;
        let http = |source| IndexError::Http { url: shown(&page), source };
        let mut body = self.get(&page).map_err(http)?;
        let text = body.with_config().limit(PAGE_BYTES).read_to_string().map_err(http)?;
        let found = listed(&text, file).and_then(|address| page.join(&address).ok());
        let mut url = found.ok_or_else(|| IndexError::NotListed { url: shown(&page), file })?;
        if url.username().is_empty() && url.host() == page.host() && url.scheme() == page.scheme() {
            // As pip does it: credentials of the index are good for its files.
            let _ = url.set_username(page.username());
            let _ = url.set_password(page.password());
        }
        Ok(url)
    }

    /// The content of `url`, at most `limit` bytes of it.
    pub(crate) fn fetch(&self, url: &Url, limit: u64) -> Result<impl Read + use<>, IndexError> {
        let body = self.get(url).map_err(|source| IndexError::Http { url: shown(url), source })?;
        Ok(body.into_with_config().limit(limit).reader())
    }

    fn get(&self, url: &Url) -> Result<Body, ureq::Error> {
        let answer = self.agent.get(url.as_str()).header("Accept", ACCEPT).call()?;
        Ok(answer.into_body())
    }
}

/// `SSL_CERT_FILE` and `SSL_CERT_DIR` if set, else the system's; Mozilla's where there is no such store.
fn root_certificates() -> RootCerts {
    let found = rustls_native_certs::load_native_certs();
    for problem in &found.errors {
        tracing::debug!(%problem, "skipped a certificate store");
    }
    match found.certs.is_empty() {
        true => RootCerts::WebPki,
        false => found.certs.iter().map(|one| Certificate::from_der(one.as_ref()).to_owned()).into(),
    }
}

/// A URL without its credentials.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// The address of `file` on a project page, JSON or HTML.
fn listed(page: &str, file: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Page {
        files: Vec<File>,
    }
    #[derive(Deserialize)]
    struct File {
        filename: String,
        url: String,
    }
    if let Ok(page) = serde_json::from_str::<Page>(page) {
        return page.files.into_iter().find(|one| one.filename == file).map(|one| one.url);
    }
    let addresses = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let mut addresses = addresses.map(|address| address.split('#').next().unwrap_or_default());
    addresses.find(|address| address.rsplit('/').next() == Some(file)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_in_json_and_in_html() {
        let json = r#"{"files":[{"filename":"b.whl","url":"x/b.whl"},{"filename":"a.whl","url":"y/a.whl"}]}"#;
        assert_eq!(listed(json, "a.whl").as_deref(), Some("y/a.whl"));
        let html = r#"<a href="../../f/b.whl#sha256=1">b</a> <a href="../../f/a.whl#sha256=2">a.whl</a>"#;
        assert_eq!(listed(html, "a.whl").as_deref(), Some("../../f/a.whl"));
        assert_eq!(listed(html, "c.whl"), None);
        assert_eq!(listed("", "c.whl"), None);
    }

    #[test]
    fn credentials_are_never_shown() {
        let index = Index::new("corp=https://ana:secret@index.example/simple").unwrap();
        assert_eq!(shown(&index.base), "https://index.example/simple/");
        let error = Index::new("ftp://ana:secret@index.example").err().unwrap();
        assert_eq!(error.to_string(), "`ftp://index.example/` is not the URL of a package index");
    }
}
