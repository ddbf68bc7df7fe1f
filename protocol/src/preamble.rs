//! The five bytes every connection starts with.
//!
//! For: telling our protocol from anything else on the socket.
//! Promises: the version is only read here; which versions a channel takes is decided once the handshake
//! names the channel, by [`Handshake::accepts_version`](crate::handshake::Handshake::accepts_version).

/// First bytes of every connection, client to daemon. The daemon never sends any.
pub const MAGIC: [u8; 4] = [0xC0, 0xDE, 0x01, 0xAC];
/// The protocol version clients of today send and the daemon reports.
pub const PROTOCOL_VERSION: u8 = 4;
/// Bytes of the preamble.
pub const PREAMBLE_BYTES: usize = 5;

/// The preamble of a client of [`PROTOCOL_VERSION`].
pub fn preamble() -> [u8; PREAMBLE_BYTES] {
    let [a, b, c, d] = MAGIC;
    [a, b, c, d, PROTOCOL_VERSION]
}

/// The version in a preamble; none if it does not start with [`MAGIC`], and then the connection is
/// closed without an answer.
pub fn preamble_version(bytes: [u8; PREAMBLE_BYTES]) -> Option<u8> {
    let [magic @ .., version] = bytes;
    (magic == MAGIC).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_magic_has_a_version() {
        assert_eq!(preamble_version(preamble()), Some(4));
        assert_eq!(preamble_version([0xC0, 0xDE, 0x01, 0xAC, 99]), Some(99));
        assert_eq!(preamble_version(*b"GET /"), None);
    }
}
