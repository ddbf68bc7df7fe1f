//! `blob-store`: what notebooks' outputs rely on.

use std::fs;
use std::sync::Arc;

use futures_util::FutureExt;
use runtimed_plugin_api::{Blob, BlobFile, BlobStore, Bytes, Digest, LiveSet};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use crate::bench::{Bench, answered};
use crate::case::{Case, Stop, Verdict, case, require};
use crate::report::Fault;

/// Bytes of the largest blob: more than any message may hold, so it is stored in pieces if at all.
const LARGE: usize = 100 << 20;
/// Puts at once.
const AT_ONCE: u32 = 64;
/// Bytes of what is put at once: several system calls long.
const SHARED: usize = 300_000;
/// Grace in seconds under which everything of this run is young.
const HOUR: u64 = 3600;
const TEXT: &str = "text/plain";
/// What a failing call has to change.
const ANSWER: &str = "answer every call that its disk allows";

pub(crate) const CASES: &[Case] = &[
    case!("digest-law", "what goes in comes out under its SHA-256, with its media type", digest_law),
    case!("unknown", "what was never stored is none", unknown),
    case!("locate", "the file that is named holds exactly the content", locate),
    case!("large", "a hundred megabytes come out as they went in", large),
    case!("at-once", "64 puts at once, of the same and of different content, all succeed", at_once),
    case!(
        "corruption",
        "content that was damaged on disk is not given out, and can be stored again",
        corruption
    ),
    case!("sweep", "a sweep deletes what is neither live nor young, and nothing else", sweep),
    case!("cancelled-put", "a put that is given up half way leaves nothing that is not whole", cancelled_put),
    case!("reopen", "what was flushed is there in the next life", reopen),
];

/// The store of a plugin that has started.
struct Store<'a> {
    bench: &'a Bench,
    store: Arc<dyn BlobStore>,
}

impl<'a> Store<'a> {
    async fn start(bench: &'a Bench) -> Result<Self, Stop> {
        let plugin = bench.start().await?;
        Self::of(bench, plugin.blob_store())
    }

    fn of(bench: &'a Bench, store: Option<Arc<dyn BlobStore>>) -> Result<Self, Stop> {
        match store {
            Some(store) => Ok(Self { bench, store }),
            None => Err(Fault::new("the plugin has no blob store", "return it from `blob_store`").into()),
        }
    }

    async fn put(&self, bytes: Bytes, media_type: &str) -> Result<Digest, Stop> {
        let put = self.bench.call("BlobStore::put", self.store.put(bytes.clone(), media_type)).await?;
        let digest = answered("BlobStore::put", put, ANSWER)?;
        let expected = digest_of(&bytes);
        require(digest == expected, || {
            Fault::new(
                format!(
                    "`BlobStore::put` answered {digest} for {} bytes whose SHA-256 is {expected}",
                    bytes.len()
                ),
                "name blobs by the SHA-256 of their content",
            )
        })?;
        Ok(digest)
    }

    async fn get(&self, digest: Digest) -> Result<Option<Blob>, Stop> {
        answered("BlobStore::get", self.bench.call("BlobStore::get", self.store.get(digest)).await?, ANSWER)
    }

    async fn locate(&self, digest: Digest) -> Result<Option<BlobFile>, Stop> {
        let located = self.bench.call("BlobStore::locate", self.store.locate(digest)).await?;
        answered("BlobStore::locate", located, ANSWER)
    }

    /// Fails unless `bytes` come out.
    async fn require_stored(&self, digest: Digest, bytes: &[u8], media_type: &str) -> Verdict {
        let fault = |what: String| {
            Fault::new(
                format!("`BlobStore::get` answered {what}"),
                "give back what was put, until it is swept",
            )
        };
        match self.get(digest).await? {
            None => Err(fault(format!("none for a blob of {} bytes that was just put", bytes.len())).into()),
            Some(blob) if blob.bytes != bytes => Err(fault(format!(
                "{} bytes that are not the {} that were put",
                blob.bytes.len(),
                bytes.len()
            ))
            .into()),
            Some(blob) => require(blob.media_type == media_type, || {
                fault(format!("the media type `{}` for one that was put as `{media_type}`", blob.media_type))
            }),
        }
    }

    /// The file of a blob that was put.
    async fn file(&self, digest: Digest) -> Result<BlobFile, Stop> {
        self.locate(digest).await?.ok_or_else(|| {
            Fault::new("`BlobStore::locate` answered none for a blob that was put", "name its file").into()
        })
    }
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

async fn digest_law(bench: &Bench) -> Verdict {
    let it = Store::start(bench).await?;
    for bytes in [&b""[..], b"abc", &[0, 255, 10, 13], "\u{1f40d}".as_bytes()] {
        let bytes = Bytes::copy_from_slice(bytes);
        let digest = it.put(bytes.clone(), TEXT).await?;
        it.require_stored(digest, &bytes, TEXT).await?;
        // Again, as something else.
        it.put(bytes.clone(), "image/png").await?;
        it.require_stored(digest, &bytes, "image/png").await?;
    }
    Ok(())
}

async fn unknown(bench: &Bench) -> Verdict {
    let it = Store::start(bench).await?;
    let never = digest_of(b"a content that nobody stored");
    require(it.get(never).await?.is_none() && it.locate(never).await?.is_none(), || {
        Fault::new("the store gives out a blob that was never stored", "answer none for what is not there")
    })
}

async fn locate(bench: &Bench) -> Verdict {
    let it = Store::start(bench).await?;
    for content in [&b""[..], b"found on disk"] {
        let digest = it.put(Bytes::from_static(content), TEXT).await?;
        let BlobFile { path, size, media_type } = it.file(digest).await?;
        let held = fs::read(&path).unwrap_or_default();
        require(path.is_absolute() && held == content, || {
            Fault::new(
                format!(
                    "`BlobStore::locate` names `{}`, which does not hold exactly the content",
                    path.display()
                ),
                "name the absolute path of a file with the bytes and nothing else: it is served as it is",
            )
        })?;
        require(size == content.len() as u64 && media_type == TEXT, || {
            Fault::new(
                format!(
                    "`BlobStore::locate` says {size} bytes of `{media_type}` for {} of `{TEXT}`",
                    content.len()
                ),
                "say what was put",
            )
        })?;
    }
    Ok(())
}

async fn large(bench: &Bench) -> Verdict {
    let it = Store::start(bench).await?;
    let bytes: Bytes = (0..LARGE).map(|at| (at >> 8) as u8 ^ at as u8).collect();
    let put = bench.build("BlobStore::put, of 100 MiB", it.store.put(bytes.clone(), TEXT)).await?;
    let digest = answered("BlobStore::put, of 100 MiB", put, ANSWER)?;
    let got = bench.build("BlobStore::get, of 100 MiB", it.store.get(digest)).await?;
    let got = answered("BlobStore::get, of 100 MiB", got, ANSWER)?;
    require(digest == digest_of(&bytes) && got.is_some_and(|blob| blob.bytes == bytes), || {
        Fault::new("100 MiB did not come out as they went in", "move content in pieces, and lose none")
    })
}

async fn at_once(bench: &Bench) -> Verdict {
    let it = Store::start(bench).await?;
    let same = Bytes::from(vec![b's'; SHARED]);
    let own = |number: u32| Bytes::from(number.to_string().repeat(1000));
    let mut puts = JoinSet::new();
    for number in 0..AT_ONCE {
        let (store, same) = (it.store.clone(), same.clone());
        puts.spawn(async move {
            let same = store.put(same, TEXT).await?;
            Ok((number, same, store.put(own(number), TEXT).await?))
        });
    }
    let all = bench.wait("BlobStore::put, 64 at once", bench.session.limits.build, puts.join_all()).await?;
    for ended in all {
        let (number, shared, its_own) = answered("BlobStore::put, 64 at once", ended, ANSWER)?;
        require(shared == digest_of(&same), || {
            Fault::new("one of 64 puts of the same content answered another digest", ANSWER)
        })?;
        it.require_stored(its_own, &own(number), TEXT).await?;
    }
    it.require_stored(digest_of(&same), &same, TEXT).await
}

async fn corruption(bench: &Bench) -> Verdict {
    let it = Store::start(bench).await?;
    let bytes = Bytes::from_static(b"content that a disk will damage");
    let digest = it.put(bytes.clone(), TEXT).await?;
    let path = it.file(digest).await?.path;
    let mut flipped = bytes.to_vec();
    flipped.iter_mut().take(1).for_each(|byte| *byte ^= 1);
    let cut = bytes.slice(..bytes.len() / 2).to_vec();
    for (what, damaged) in [("a flipped bit", flipped), ("its second half missing", cut)] {
        // A store may have made its file read-only; the disk asks nobody.
        let damage = fs::remove_file(&path).and_then(|()| fs::write(&path, &damaged));
        if let Err(error) = damage {
            return Err(Stop::skipped(format!("`{}` could not be damaged: {error}", path.display())));
        }
        // None and an error are both right.
        if let Ok(Some(blob)) = bench.call("BlobStore::get", it.store.get(digest)).await? {
            require(blob.bytes == bytes, || {
                Fault::new(
                    format!("`BlobStore::get` gave out a blob with {what}"),
                    "compare what is read with its digest, and treat what is damaged as missing",
                )
            })?;
        }
        it.put(bytes.clone(), TEXT).await?;
        it.require_stored(digest, &bytes, TEXT).await?;
    }
    Ok(())
}

async fn sweep(bench: &Bench) -> Verdict {
    let it = Store::start(bench).await?;
    let (live, dead) = (it.put("live".into(), TEXT).await?, it.put("dead".into(), TEXT).await?);
    let sweep = async |grace_secs: u64| {
        let set = LiveSet { digests: [live].into(), grace_secs };
        answered("BlobStore::sweep", bench.call("BlobStore::sweep", it.store.sweep(set)).await?, ANSWER)
    };
    let remedy = "keep what is in the live set or younger than the grace time, and delete the rest";
    let young = sweep(HOUR).await?;
    require(young.deleted == 0, || {
        Fault::new("`BlobStore::sweep` deleted a blob within its grace time", remedy)
    })?;
    it.require_stored(dead, b"dead", TEXT).await?;
    let swept = sweep(0).await?;
    require(swept.deleted == 1 && swept.bytes == 4, || {
        Fault::new(format!("`BlobStore::sweep` says {swept:?} where one blob of 4 bytes had to go"), remedy)
    })?;
    it.require_stored(live, b"live", TEXT).await?;
    require(it.get(dead).await?.is_none(), || {
        Fault::new("`BlobStore::sweep` left a blob that nothing refers to", remedy)
    })?;
    it.put("dead".into(), TEXT).await.map(drop)
}

async fn cancelled_put(bench: &Bench) -> Verdict {
    let it = Store::start(bench).await?;
    for (number, polls) in [1, 2, 10].into_iter().enumerate() {
        let bytes = Bytes::from(vec![number as u8; 8 << 20]);
        let mut put = it.store.put(bytes.clone(), TEXT);
        for _ in 0..polls {
            if (&mut put).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        bench.at_once("drop of a call of BlobStore::put", || drop(put))?;
        if let Some(blob) = it.get(digest_of(&bytes)).await? {
            require(blob.bytes == bytes, || {
                Fault::new(
                    "a put that was given up left half a blob",
                    "put content in place when it is whole",
                )
            })?;
        }
        let digest = it.put(bytes.clone(), TEXT).await?;
        it.require_stored(digest, &bytes, TEXT).await?;
    }
    Ok(())
}

async fn reopen(bench: &Bench) -> Verdict {
    let plugin = bench.start().await?;
    let it = Store::of(bench, plugin.blob_store())?;
    let digest = it.put("kept".into(), TEXT).await?;
    answered("BlobStore::flush", bench.call("BlobStore::flush", it.store.flush()).await?, ANSWER)?;
    drop(it);
    bench.stop(plugin).await?;
    Store::start(bench).await?.require_stored(digest, b"kept", TEXT).await
}
