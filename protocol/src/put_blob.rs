//! Blob uploads in PUT_BLOB frames.
//!
//! For: telling header from body without copying the body.
//! Promises: a header that is JSON but no known operation still yields its id.
//! Never: hashes or stores anything.

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An upload: what it claims to be, and the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutBlob {
    /// The claim. Size and hash are not checked yet.
    pub header: PutBlobHeader,
    /// The bytes.
    pub body: Bytes,
}

/// The header, by `op`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum PutBlobHeader {
    /// A whole blob.
    Put {
        /// Echoed in the response.
        id: String,
        /// Media type.
        media_type: String,
        /// Bytes of the body.
        size: u64,
        /// SHA-256 of the body, 64 hex digits.
        sha256: String,
        /// How long it is wanted; durable if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        durability: Option<Durability>,
        /// For information.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        purpose: Option<String>,
    },
    /// A part of an upload.
    Part {
        /// Echoed in the response.
        id: String,
        /// The upload.
        upload_id: String,
        /// Number of the part.
        part_number: u32,
        /// Bytes of the body.
        size: u64,
        /// SHA-256 of the body, 64 hex digits.
        sha256: String,
    },
}

/// How long a blob is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// As long as something refers to it.
    Durable,
    /// Not beyond the life of the daemon.
    Ephemeral,
}

/// The payload has no usable header; answered with `invalid_header`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the upload's header makes no sense")]
pub struct InvalidHeader {
    /// The upload's id, if the header was JSON with one.
    pub id: Option<String>,
}

impl PutBlob {
    /// Reads the payload of a PUT_BLOB frame.
    ///
    /// # Errors
    /// If the header is cut short, is no JSON or is no known operation.
    pub fn decode(mut payload: Bytes) -> Result<Self, InvalidHeader> {
        let nameless = || InvalidHeader { id: None };
        let length = payload.try_get_u32().map_err(|_| nameless())?;
        let length = usize::try_from(length).map_err(|_| nameless())?;
        if length > payload.len() {
            return Err(nameless());
        }
        let json: Value = serde_json::from_slice(&payload.split_to(length)).map_err(|_| nameless())?;
        let id = json.get("id").and_then(Value::as_str).map(str::to_owned);
        match serde_json::from_value(json) {
            Ok(header) => Ok(Self { header, body: payload }),
            Err(_) => Err(InvalidHeader { id }),
        }
    }

    /// The payload of a PUT_BLOB frame.
    ///
    /// # Errors
    /// Only if the header is 4 GiB or longer, or no JSON.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let header = serde_json::to_vec(&self.header)?;
        let length = u32::try_from(header.len()).map_err(serde::ser::Error::custom)?;
        Ok([length.to_be_bytes().as_slice(), &header, &self.body].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(header: &str, body: &[u8]) -> Bytes {
        let length = u32::try_from(header.len()).unwrap().to_be_bytes();
        [length.as_slice(), header.as_bytes(), body].concat().into()
    }

    #[test]
    fn a_bad_header_is_named_when_it_can_be() {
        let id = |payload| PutBlob::decode(payload).unwrap_err().id;
        assert_eq!(id(payload(r#"{"op":"zzz","id":"b9"}"#, b"")).as_deref(), Some("b9"));
        assert_eq!(id(payload("{", b"")), None);
        assert_eq!(id(Bytes::from_static(&[0, 0, 1, 0, b'{'])), None);
        assert_eq!(id(Bytes::from_static(&[0, 0])), None);
    }

    #[test]
    fn header_and_body_survive_the_wire() {
        let upload = PutBlob {
            header: PutBlobHeader::Part {
                id: "b1".into(),
                upload_id: "u".into(),
                part_number: 2,
                size: 3,
                sha256: "00".repeat(32),
            },
            body: Bytes::from_static(b"abc"),
        };
        assert_eq!(PutBlob::decode(upload.encode().unwrap().into()).unwrap(), upload);
    }
}
