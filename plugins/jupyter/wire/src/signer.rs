//! Jupyter messages as they look on a ZeroMQ socket.
//!
//! For: signing what we send and checking what we receive.
//! Promises: only a message whose HMAC-SHA256 fits becomes a [`Message`]; parts are shared, not copied.
//! Never: parses JSON, knows message types.

use std::io;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::message::Message;

/// Separates routing identities from the message (Jupyter messaging protocol, "The Wire Protocol").
const DELIMITER: &[u8] = b"<IDS|MSG>";

/// Signs and checks the messages of one kernel.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

/// A message that is not one, or is not from our kernel.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverifiable {
    /// Delimiter, signature or a JSON part is missing.
    #[error("the frames are not a Jupyter message")]
    Shape,
    /// The signature does not fit.
    #[error("the signature is wrong")]
    Signature,
}

impl Signer {
    /// A signer with the key of the connection file.
    ///
    /// # Errors
    /// None in practice: HMAC takes keys of any length.
    pub fn new(key: &str) -> io::Result<Self> {
        Hmac::new_from_slice(key.as_bytes()).map(Self).map_err(|error| io::Error::other(error.to_string()))
    }

    /// The frames of `message`: delimiter, signature, four JSON parts, buffers.
    pub fn frames(&self, message: Message) -> Vec<Bytes> {
        let json = [message.header, message.parent_header, message.metadata, message.content];
        let signature = hex::encode(self.digest(&json).finalize().into_bytes());
        let head = [Bytes::from_static(DELIMITER), signature.into()];
        head.into_iter().chain(json).chain(message.buffers).collect()
    }

    /// The message in `frames`; identities before the delimiter are dropped.
    ///
    /// # Errors
    /// [`Unverifiable`], and the message must be ignored.
    pub fn message(&self, frames: Vec<Bytes>) -> Result<Message, Unverifiable> {
        let mut frames = frames.into_iter().skip_while(|frame| frame != DELIMITER).skip(1);
        let signature = frames.next().ok_or(Unverifiable::Shape)?;
        let mut part = || frames.next().ok_or(Unverifiable::Shape);
        let json = [part()?, part()?, part()?, part()?];
        let signature = hex::decode(&signature).map_err(|_| Unverifiable::Signature)?;
        // Compares in constant time.
        self.digest(&json).verify_slice(&signature).map_err(|_| Unverifiable::Signature)?;
        let [header, parent_header, metadata, content] = json;
        Ok(Message { header, parent_header, metadata, content, buffers: frames.collect() })
    }

    fn digest(&self, json: &[Bytes]) -> Hmac<Sha256> {
        let mut digest = self.0.clone();
        json.iter().for_each(|part| digest.update(part));
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            header: Bytes::from_static(b"{\"msg_id\":\"1\"}"),
            parent_header: Bytes::from_static(b"{}"),
            metadata: Bytes::from_static(b"{}"),
            content: Bytes::from_static(b"{\"a\":1}"),
            buffers: vec![Bytes::from_static(&[0, 255]), Bytes::from_static(DELIMITER)],
        }
    }

    #[test]
    fn a_message_survives_the_trip_with_identities_in_front() {
        let signer = Signer::new("key").unwrap();
        let mut frames = signer.frames(message());
        frames.insert(0, Bytes::from_static(b"kernel.42.status"));
        assert_eq!(signer.message(frames), Ok(message()));
    }

    #[test]
    fn the_signature_is_the_one_every_jupyter_client_makes() {
        // python3: hmac.new(b"key", b'{"msg_id":"1"}{}{}{"a":1}', "sha256").hexdigest()
        let frames = Signer::new("key").unwrap().frames(message());
        assert_eq!(frames[1], "b5c3f3f2ae4bdd60a1ea8475a37961c8cc8853392dcee28a7c72f2463bd7f890");
    }

    #[test]
    fn another_key_or_a_changed_part_is_refused() {
        let signer = Signer::new("key").unwrap();
        assert_eq!(
            Signer::new("other").unwrap().message(signer.frames(message())),
            Err(Unverifiable::Signature)
        );
        for part in 2..6 {
            let mut frames = signer.frames(message());
            frames[part] = Bytes::from_static(b"{\"evil\":1}");
            assert_eq!(signer.message(frames), Err(Unverifiable::Signature), "part {part}");
        }
    }

    #[test]
    fn too_few_frames_are_refused() {
        let signer = Signer::new("key").unwrap();
        for length in 0..6 {
            let mut frames = signer.frames(message());
            frames.truncate(length);
            assert_eq!(signer.message(frames), Err(Unverifiable::Shape), "{length} frames");
        }
    }
}
