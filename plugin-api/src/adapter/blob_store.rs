//! `blob-store.v1`, both ways.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{ROption, RString, Reply, TD_Opaque};

use super::Side;
use super::convert::{document, json, parse, result};
use super::served::Served;
use crate::{Blob, BlobFile, BlobStore, Digest, LiveSet, Result, Swept};

pub(super) fn serve_blob_store(store: Arc<dyn BlobStore>, side: &Side) -> abi::BlobStoreObject {
    abi::BlobStore_TO::from_value(Served::new(store, side), TD_Opaque)
}

impl abi::BlobStore for Served<dyn BlobStore> {
    fn put(&self, content: abi::Bytes, media_type: RString) -> Reply {
        self.reply(|it| async move { it.put(content.into(), &media_type).await })
    }

    fn get(&self, digest: RString) -> Reply<ROption<abi::Blob>> {
        self.answer(|it| async move {
            let blob = it.get(parse(&digest)?).await?;
            Ok(blob
                .map(|blob| abi::Blob { content: blob.bytes.into(), media_type: blob.media_type.into() })
                .into())
        })
    }

    fn locate(&self, digest: RString) -> Reply {
        self.reply(|it| async move { it.locate(parse(&digest)?).await })
    }

    fn sweep(&self, live: RString) -> Reply {
        self.reply(|it| async move { it.sweep(parse(&live)?).await })
    }

    fn flush(&self) -> Reply {
        self.reply(|it| async move { it.flush().await })
    }
}

pub(super) fn remote_blob_store(object: abi::BlobStoreObject) -> Arc<dyn BlobStore> {
    Arc::new(RemoteBlobStore(object))
}

struct RemoteBlobStore(abi::BlobStoreObject);

#[async_trait]
impl BlobStore for RemoteBlobStore {
    async fn put(&self, bytes: Bytes, media_type: &str) -> Result<Digest> {
        document(self.0.put(bytes.into(), media_type.into())).await
    }

    async fn get(&self, digest: Digest) -> Result<Option<Blob>> {
        let blob = result(self.0.get(json(&digest)?).await)?.into_option();
        Ok(blob.map(|blob| Blob { bytes: blob.content.into(), media_type: blob.media_type.into() }))
    }

    async fn locate(&self, digest: Digest) -> Result<Option<BlobFile>> {
        document(self.0.locate(json(&digest)?)).await
    }

    async fn sweep(&self, live: LiveSet) -> Result<Swept> {
        document(self.0.sweep(json(&live)?)).await
    }

    async fn flush(&self) -> Result<()> {
        document(self.0.flush()).await
    }
}
