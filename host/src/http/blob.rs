//! `GET /blob/<hash>`.
//!
//! For: clients that show outputs.
//! Promises: streamed from the file in pieces, whatever its size; ranges and revalidation work; content that is damaged
//! is not served as a whole: its last piece is missing, or the blob is.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use runtimed_plugin_api::{BlobFile, BlobStore, Digest, PluginError};
use sha2::{Digest as _, Sha256};

use super::not_found;
use crate::daemon::Daemon;

/// Bytes read at a time: few trips to the blocking pool, little memory per download (our choice).
const PIECE_BYTES: usize = 1024 * 1024;

/// Answers `GET` and `HEAD`.
pub(super) async fn get(
    State(daemon): State<Arc<Daemon>>,
    Path(hash): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> axum::response::Response {
    let Ok(digest) = hash.parse::<Digest>() else { return not_found().await };
    let answered = match locate(&daemon, digest).await {
        Ok((store, Some(blob))) => match answer(blob, digest, method == Method::HEAD, &headers).await {
            // The store sees for itself, says so, and moves it aside.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => store.get(digest).await.map(|_| None),
            answered => Ok(Some(answered)),
        },
        Ok((_, None)) => Ok(None),
        Err(error) => Err(error),
    };
    match answered {
        Ok(Some(Ok(answer))) => answer,
        Ok(Some(Err(error))) => {
            tracing::warn!("could not serve blob {digest}: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, "the blob cannot be read at the moment").into_response()
        }
        Ok(None) => not_found().await,
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.message).into_response(),
    }
}

async fn locate(
    daemon: &Daemon,
    digest: Digest,
) -> Result<(Arc<dyn BlobStore>, Option<BlobFile>), PluginError> {
    let blobs = daemon.registry().await?.blob_store();
    let blobs = blobs.ok_or_else(|| PluginError::unavailable("No plugin stores blobs."))?;
    let blob = blobs.locate(digest).await?;
    Ok((blobs, blob))
}

async fn answer(
    blob: BlobFile,
    digest: Digest,
    head: bool,
    headers: &HeaderMap,
) -> io::Result<axum::response::Response> {
    let etag = format!("\"{digest}\"");
    let fallback = HeaderValue::from_static("application/octet-stream");
    let response = Response::builder()
        .header(header::CONTENT_TYPE, HeaderValue::from_str(&blob.media_type).unwrap_or(fallback))
        .header(header::CACHE_CONTROL, "public, max-age=31536000, immutable")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, &etag);
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let known = text(header::IF_NONE_MATCH).is_some_and(|tags| {
        tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag || tag.trim() == "*")
    });
    if known {
        return response.status(StatusCode::NOT_MODIFIED).body(Body::empty()).map_err(io::Error::other);
    }
    let range = text(header::RANGE)
        .filter(|_| text(header::IF_RANGE).is_none_or(|tag| tag == etag))
        .map_or(Range::Whole, |range| Range::parse(range, blob.size));
    let (response, start, length) = match range {
        Range::Whole => (response, 0, blob.size),
        Range::Part { start, length } => {
            let content_range = format!("bytes {start}-{}/{}", start + length - 1, blob.size);
            let response = response.status(StatusCode::PARTIAL_CONTENT);
            (response.header(header::CONTENT_RANGE, content_range), start, length)
        }
        Range::Outside => {
            let content_range = format!("bytes */{}", blob.size);
            let response = response.status(StatusCode::RANGE_NOT_SATISFIABLE);
            let response = response.header(header::CONTENT_RANGE, content_range);
            return response.body(Body::empty()).map_err(io::Error::other);
        }
    };
    let check = (length == blob.size).then_some(digest);
    let body = if head { Body::empty() } else { read(blob.path, start, length, check).await? };
    response.header(header::CONTENT_LENGTH, length).body(body).map_err(io::Error::other)
}

/// What of the content is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    Part { start: u64, length: u64 },
    Outside,
}

impl Range {
    /// Reads a `Range` header. What is not one plain range of bytes asks for everything.
    fn parse(header: &str, size: u64) -> Self {
        let Some((first, last)) =
            header.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
        else {
            return Self::Whole;
        };
        let (first, last) =
            (first.parse::<u64>(), last.parse::<u64>().ok().or(last.is_empty().then_some(u64::MAX)));
        match (first, last) {
            (Ok(first), Some(last)) if first <= last => match first < size {
                true => Self::Part { start: first, length: last.min(size - 1) - first + 1 },
                false => Self::Outside,
            },
            (Err(_), Some(last)) if header.starts_with("bytes=-") && last != u64::MAX => match last.min(size)
            {
                0 => Self::Outside,
                length => Self::Part { start: size - length, length },
            },
            _ => Self::Whole,
        }
    }
}

/// The bytes of a file. The first piece is read before the answer begins, so that a missing file is an
/// error and not a torn answer. If they are not what `check` says, the last piece is an `InvalidData` error.
async fn read(path: PathBuf, start: u64, length: u64, check: Option<Digest>) -> io::Result<Body> {
    let opened = blocking(move || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        read_piece(Rest { file, left: length, check: check.map(|digest| (Sha256::new(), digest)) })
    });
    let (first, rest) = opened.await?;
    if rest.left == 0 {
        return Ok(Body::from(first));
    }
    let pieces = stream::try_unfold((Some(first), rest), |(ready, rest)| async move {
        if let Some(piece) = ready {
            return Ok(Some((piece, (None, rest))));
        }
        if rest.left == 0 {
            return Ok::<_, io::Error>(None);
        }
        let read = blocking(move || read_piece(rest)).await;
        let (piece, rest) = read.inspect_err(|error| tracing::error!("an answer was cut off: {error}"))?;
        Ok(Some((piece, (None, rest))))
    });
    Ok(Body::from_stream(pieces))
}

/// A file and the bytes that are still wanted of it.
struct Rest {
    file: File,
    left: u64,
    /// What was read so far, and what it has to be in the end.
    check: Option<(Sha256, Digest)>,
}

fn read_piece(mut rest: Rest) -> io::Result<(Bytes, Rest)> {
    let wanted = rest.left.min(PIECE_BYTES as u64);
    let mut piece = Vec::with_capacity(wanted as usize);
    if (&mut rest.file).take(wanted).read_to_end(&mut piece)? as u64 != wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    rest.left -= wanted;
    if let Some((content, _)) = &mut rest.check {
        content.update(&piece);
    }
    if let Some((content, digest)) = rest.check.take_if(|_| rest.left == 0)
        && Digest(content.finalize().into()) != digest
    {
        let text = format!("blob {digest} has other content than it should");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok((piece.into(), rest))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ranges_are_understood_and_others_give_everything() {
        let part = |start, length| Range::Part { start, length };
        for (header, expected) in [
            ("bytes=0-9", part(0, 10)),
            ("bytes=5-", part(5, 95)),
            ("bytes=-10", part(90, 10)),
            ("bytes=-1000", part(0, 100)),
            ("bytes=90-1000", part(90, 10)),
            ("bytes=100-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=9-5", Range::Whole),
            ("bytes=0-1,5-6", Range::Whole),
            ("lines=0-1", Range::Whole),
            ("bytes=-", Range::Whole),
        ] {
            assert_eq!(Range::parse(header, 100), expected, "{header}");
        }
        assert_eq!(Range::parse("bytes=0-", 0), Range::Outside);
    }

    #[tokio::test]
    async fn a_long_file_is_streamed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        let content: Vec<u8> = (0..PIECE_BYTES * 2 + 7).map(|n| n as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let body = read(path.clone(), 3, content.len() as u64 - 3, None).await.unwrap();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        assert!(bytes == content[3..]);
        assert!(read(dir.path().join("missing"), 0, 1, None).await.is_err());
        let whole = |digest| read(path.clone(), 0, content.len() as u64, Some(digest));
        let body = whole(Digest(Sha256::digest(&content).into())).await.unwrap();
        assert!(axum::body::to_bytes(body, usize::MAX).await.unwrap() == content);
        let body = whole(Digest([0; 32])).await.unwrap();
        assert!(axum::body::to_bytes(body, usize::MAX).await.is_err(), "damaged");
    }

    #[tokio::test]
    async fn answers_carry_what_caches_and_players_need() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        std::fs::write(&path, "hello blob").unwrap();
        let digest = Digest(Sha256::digest("hello blob").into());
        let ask = async |head: bool, name: &'static str, value: String| {
            let blob = BlobFile { path: path.clone(), size: 10, media_type: "image/png".into() };
            let headers = HeaderMap::from_iter([(
                name.parse::<header::HeaderName>().unwrap(),
                HeaderValue::from_str(&value).unwrap(),
            )]);
            let answer = answer(blob, digest, head, &headers).await.unwrap();
            let (parts, body) = answer.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            (parts.status.as_u16(), parts.headers, body)
        };
        let (status, headers, body) = ask(false, "accept", "*/*".into()).await;
        assert_eq!((status, &body[..]), (200, &b"hello blob"[..]));
        assert_eq!(headers["content-type"], "image/png");
        assert_eq!(headers["content-length"], "10");
        assert_eq!(headers["cache-control"], "public, max-age=31536000, immutable");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["etag"], format!("\"{digest}\""));

        let (status, headers, body) = ask(true, "accept", "*/*".into()).await;
        assert_eq!(
            (status, body.len(), &headers["content-length"]),
            (200, 0, &HeaderValue::from_static("10"))
        );
        let (status, headers, body) = ask(false, "range", "bytes=6-".into()).await;
        assert_eq!((status, &body[..]), (206, &b"blob"[..]));
        assert_eq!(headers["content-range"], "bytes 6-9/10");
        assert_eq!(ask(false, "range", "bytes=10-".into()).await.0, 416);
        let (status, _, body) = ask(false, "if-none-match", format!("\"x\", W/\"{digest}\"")).await;
        assert_eq!((status, body.len()), (304, 0));
    }
}
