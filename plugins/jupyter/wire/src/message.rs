//! A Jupyter message, and how it crosses between shim and daemon.
//!
//! Promises: pure; decoding shares the input and copies nothing.
//! Shape: `u32` number of parts, then per part `u32` length and the bytes, all big-endian. Parts: header, parent
//! header, metadata, content, buffers. No identities, no signature. Frozen with the protocol.

use bytes::{Buf, BufMut, Bytes};

/// The parts of a message, each as the kernel or the daemon wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// JSON: who says what.
    pub header: Bytes,
    /// JSON: the header of the request this belongs to.
    pub parent_header: Bytes,
    /// JSON.
    pub metadata: Bytes,
    /// JSON: what is said.
    pub content: Bytes,
    /// Binary parts, as those of widgets.
    pub buffers: Vec<Bytes>,
}

impl Message {
    fn parts(&self) -> impl Iterator<Item = &Bytes> + Clone {
        [&self.header, &self.parent_header, &self.metadata, &self.content].into_iter().chain(&self.buffers)
    }

    /// Bytes that [`Message::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        4 + self.parts().map(|part| 4 + part.len()).sum::<usize>()
    }

    /// Writes the message, which is smaller than 4 GiB.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u32(4 + self.buffers.len() as u32);
        for part in self.parts() {
            out.put_u32(part.len() as u32);
            out.put_slice(part);
        }
    }

    /// The message in `bytes`; none when they are something else.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        let count = bytes.try_get_u32().ok()?;
        let mut part = || {
            let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
            (length <= bytes.len()).then(|| bytes.split_to(length))
        };
        let (header, parent_header, metadata, content) = (part()?, part()?, part()?, part()?);
        let buffers = (4..count).map(|_| part()).collect::<Option<_>>()?;
        let whole = count >= 4 && bytes.is_empty();
        whole.then_some(Self { header, parent_header, metadata, content, buffers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_trip_and_a_torn_one_is_refused() {
        let message = Message {
            header: Bytes::from_static(b"{\"msg_id\":\"1\"}"),
            parent_header: Bytes::from_static(b"{}"),
            content: Bytes::from_static(b"{\"a\":1}"),
            buffers: vec![Bytes::from_static(&[0, 255]), Bytes::new()],
            ..Default::default()
        };
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        assert_eq!(encoded.len(), message.encoded_len());
        let encoded = Bytes::from(encoded);
        for length in 0..encoded.len() {
            assert_eq!(Message::decode(encoded.slice(..length)), None, "{length} bytes");
        }
        assert_eq!(Message::decode(encoded), Some(message));
    }
}
