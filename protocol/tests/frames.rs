//! The decoders against arbitrary bytes in arbitrary pieces.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use runtimed_protocol::frame::{
    FRAME_MAX, FrameDecoder, FrameError, FrameType, POOL_MAX, TypedDecoder, TypedFrame, length_header,
    typed_header,
};

/// Feeds pieces to a typed decoder and returns what came out, and how much it ever had to keep.
fn read_typed<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<TypedFrame>, Option<FrameError>, usize) {
    let (mut decoder, mut buffer) = (TypedDecoder::new(), BytesMut::new());
    let (mut frames, mut kept) = (Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error), kept),
            }
        }
        kept = kept.max(buffer.len());
    }
    (frames, None, kept)
}

/// Cuts `bytes` at the given places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_never_depend_on_the_pieces(
        bytes in vec(any::<u8>(), 0..2000),
        places in vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let (whole, error, _) = read_typed([bytes.as_slice()]);
        let (pieces, error_in_pieces, _) = read_typed(cut(&bytes, &places));
        prop_assert_eq!(whole, pieces);
        prop_assert_eq!(error, error_in_pieces);
    }

    #[test]
    fn frames_come_out_as_they_went_in(
        sent in vec((0u8..=0x20, vec(any::<u8>(), 0..300)), 0..20),
        places in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut bytes = Vec::new();
        for (frame_type, payload) in &sent {
            bytes.extend(typed_header(*frame_type, payload.len()).unwrap());
            bytes.extend(payload);
        }
        let known: Vec<_> = sent
            .into_iter()
            .filter(|(frame_type, _)| FrameType::payload_max(*frame_type).is_some())
            .map(|(frame_type, payload)| TypedFrame { frame_type, payload: payload.into() })
            .collect();
        let (frames, error, kept) = read_typed(cut(&bytes, &places));
        prop_assert_eq!(frames, known);
        prop_assert_eq!(error, None);
        prop_assert!(kept < 5 + 300);
    }

    #[test]
    fn untyped_frames_come_out_as_they_went_in(
        sent in vec(vec(any::<u8>(), 0..300), 0..20),
        places in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut bytes = Vec::new();
        for body in &sent {
            bytes.extend(length_header(body.len(), POOL_MAX).unwrap());
            bytes.extend(body);
        }
        let (mut decoder, mut buffer, mut bodies) = (FrameDecoder::new(POOL_MAX), BytesMut::new(), Vec::new());
        for piece in cut(&bytes, &places) {
            buffer.extend_from_slice(piece);
            while let Some(body) = decoder.decode(&mut buffer).unwrap() {
                bodies.push(body.to_vec());
            }
        }
        prop_assert_eq!(bodies, sent);
    }
}

#[test]
fn limits_hold_before_the_body_arrives() {
    let mut buffer = BytesMut::from(&(64 * 1024 + 1u32).to_be_bytes()[..]);
    let too_long = FrameDecoder::new(POOL_MAX).decode(&mut buffer);
    assert_eq!(too_long, Err(FrameError::TooLong { length: POOL_MAX + 1, max: POOL_MAX }));

    let typed = |bytes: &[u8]| TypedDecoder::new().decode(&mut BytesMut::from(bytes));
    assert!(matches!(typed(&[0xFF; 4]), Err(FrameError::TooLong { .. })));
    assert_eq!(typed(&[0, 0, 0, 0]), Err(FrameError::NoType));
    assert!(matches!(typed(&[0, 0, 0x10, 0x02, 0x04]), Err(FrameError::PayloadTooLong { max: 4096, .. })));
    assert_eq!(typed(&[0, 0, 0x10, 0x01, 0x04]), Ok(None));
    assert!(typed_header(FrameType::PRESENCE, 4096).is_ok());
    assert!(typed_header(FrameType::PRESENCE, 4097).is_err());
    assert!(length_header(FRAME_MAX, FRAME_MAX).is_ok());
    assert!(length_header(FRAME_MAX + 1, FRAME_MAX).is_err());
}

#[test]
fn an_unknown_frame_of_any_length_is_never_kept() {
    let length = 50 * 1024 * 1024;
    let header = typed_header(0x7F, length).unwrap();
    let chunk = vec![0; 64 * 1024];
    let pieces = std::iter::once(&header[..])
        .chain(std::iter::repeat_n(&chunk[..], length / chunk.len()))
        .chain(std::iter::once(&[0, 0, 0, 2, FrameType::REQUEST, b'x'][..]));
    let (frames, error, kept) = read_typed(pieces);
    assert_eq!(frames, [TypedFrame { frame_type: FrameType::REQUEST, payload: Bytes::from_static(b"x") }]);
    assert_eq!((error, kept), (None, 0));
}

#[test]
fn a_payload_is_a_view_into_the_read_buffer() {
    let mut buffer = BytesMut::from(&[0, 0, 0, 3, FrameType::REQUEST, b'h', b'i'][..]);
    let payload_at = buffer[5..].as_ptr();
    let frame = TypedDecoder::new().decode(&mut buffer).unwrap().unwrap();
    assert_eq!((frame.payload.as_ptr(), &frame.payload[..]), (payload_at, &b"hi"[..]));
}
