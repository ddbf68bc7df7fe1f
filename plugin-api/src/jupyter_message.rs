//! A Jupyter message as it crosses between rooms and kernel backends.
//!
//! For: moving the four JSON parts and the buffers as one `Bytes` without parsing them on the way.
//! Promises: `decode(encode(m)) == m`; decoding shares the input and copies nothing.
//! Shape: `u32` number of parts, then per part `u32` length and the bytes, all big-endian.
//! Parts: header, parent header, metadata, content, buffers. No identities, no signature.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{PluginError, Result};

/// The parts of a message, each still encoded as the kernel sent it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JupyterMessage {
    /// JSON header: `msg_id`, `msg_type`, `session`, ...
    pub header: Bytes,
    /// JSON header of the message this one answers, `{}` if none.
    pub parent_header: Bytes,
    /// JSON metadata.
    pub metadata: Bytes,
    /// JSON content.
    pub content: Bytes,
    /// Binary buffers.
    pub buffers: Vec<Bytes>,
}

impl JupyterMessage {
    /// Number of JSON parts before the buffers.
    pub const JSON_PARTS: usize = 4;

    /// The message as one piece.
    pub fn encode(&self) -> Bytes {
        let json = [&self.header, &self.parent_header, &self.metadata, &self.content];
        let parts = json.into_iter().chain(&self.buffers);
        let size = 4 + parts.clone().map(|part| 4 + part.len()).sum::<usize>();
        let mut out = BytesMut::with_capacity(size);
        out.put_u32((Self::JSON_PARTS + self.buffers.len()) as u32);
        for part in parts {
            out.put_u32(part.len() as u32);
            out.put_slice(part);
        }
        out.freeze()
    }

    /// The message in `bytes`.
    ///
    /// # Errors
    /// `Invalid` when the bytes are not what [`JupyterMessage::encode`] makes.
    pub fn decode(mut bytes: Bytes) -> Result<Self> {
        let torn = || PluginError::invalid("not an encoded Jupyter message");
        let count = bytes.try_get_u32().map_err(|_| torn())? as usize;
        let mut part = || {
            let length = bytes.try_get_u32().map_err(|_| torn())? as usize;
            if length > bytes.len() {
                return Err(torn());
            }
            Ok(bytes.split_to(length))
        };
        let (header, parent_header, metadata, content) = (part()?, part()?, part()?, part()?);
        let buffers = (Self::JSON_PARTS..count).map(|_| part()).collect::<Result<_>>()?;
        if count < Self::JSON_PARTS || !bytes.is_empty() {
            return Err(torn());
        }
        Ok(Self { header, parent_header, metadata, content, buffers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_trip() {
        let message = JupyterMessage {
            header: Bytes::from_static(b"{\"msg_id\":\"1\"}"),
            parent_header: Bytes::from_static(b"{}"),
            metadata: Bytes::new(),
            content: Bytes::from_static(b"{\"a\":1}"),
            buffers: vec![Bytes::from_static(&[0, 255]), Bytes::new()],
        };
        assert_eq!(JupyterMessage::decode(message.encode()), Ok(message));
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = JupyterMessage { content: Bytes::from_static(b"{}"), ..Default::default() }.encode();
        for length in 0..whole.len() {
            assert!(JupyterMessage::decode(whole.slice(..length)).is_err(), "{length} bytes were accepted");
        }
    }
}
