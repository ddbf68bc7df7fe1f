//! Uploads of clients, whole and in parts.

use std::time::Duration;

use bytes::Bytes;
use runtimed_protocol::frame::FrameType;
use runtimed_protocol::put_blob::{PutBlob, PutBlobHeader};
use runtimed_protocol::response::{BlobUploadFailure as Failure, NotebookResponse as Response};
use serde_json::{Value as Json, json};

use super::world::World;
use crate::ids::PeerId;
use crate::outputs::mime::digest;
use crate::room::peers::Scope;

fn hash(bytes: &[u8]) -> String {
    digest(bytes).to_string()
}

fn failed(reason: Failure) -> Response {
    Response::BlobUploadError { reason }
}

/// A client in a room that has settled.
fn world(seed: u64) -> (World, PeerId) {
    let mut world = World::create(seed);
    let ana = world.join("ana");
    world.settle();
    (world, ana)
}

fn frame(header: PutBlobHeader, body: &[u8]) -> (u8, Bytes) {
    let upload = PutBlob { header, body: Bytes::copy_from_slice(body) };
    (FrameType::PUT_BLOB, upload.encode().unwrap().into())
}

/// Begins an upload and returns its name.
fn begin(world: &mut World, ana: PeerId, create: Json) -> String {
    let mut request = json!({"action": "create_blob_upload", "media_type": "text/plain"});
    request.as_object_mut().unwrap().extend(create.as_object().unwrap().clone());
    match world.ask(ana, request) {
        Response::BlobUploadCreated { upload_id, .. } => upload_id,
        other => panic!("not begun: {other:?}"),
    }
}

fn put_part(id: &str, upload: &str, number: u32, sha256: String, body: &[u8]) -> (u8, Bytes) {
    let header = PutBlobHeader::Part {
        id: id.to_owned(),
        upload_id: upload.to_owned(),
        part_number: number,
        size: body.len() as u64,
        sha256,
    };
    frame(header, body)
}

/// Sends a part and returns the answer.
fn part(world: &mut World, ana: PeerId, upload: &str, number: u32, body: &[u8]) -> Response {
    let id = world.ids.uuid().to_string();
    let frame = put_part(&id, upload, number, hash(body), body);
    world.send(ana, frame);
    world.settle();
    world.answer(ana, &id)
}

fn complete(world: &mut World, ana: PeerId, upload: &str, parts: &[(u32, &[u8])]) -> Response {
    let part = |(number, body): &(u32, &[u8])| json!({"part_number": number, "sha256": hash(body), "size": body.len()});
    let parts: Vec<Json> = parts.iter().map(part).collect();
    world.ask(ana, json!({"action": "complete_blob_upload", "upload_id": upload, "parts": parts}))
}

#[test]
fn parts_become_one_blob_in_the_order_of_the_list() {
    let (mut world, ana) = world(50);
    let whole = b"0123456789";
    let create = json!({"size": 10, "part_size": 6, "sha256": hash(whole)});
    let upload = begin(&mut world, ana, create);
    for (number, body) in [(9, &whole[6..]), (4, &whole[..6]), (9, &whole[6..])] {
        let stored =
            Response::BlobPartStored { upload_id: upload.clone(), part_number: number, sha256: hash(body) };
        assert_eq!(part(&mut world, ana, &upload, number, body), stored);
    }
    let (first, second) = ((4, &whole[..6]), (9, &whole[6..]));
    for (list, failure) in [
        (&[first][..], Failure::ManifestMismatch),
        (&[first, second, second], Failure::ManifestMismatch),
        (&[second, first], Failure::FinalHashMismatch),
    ] {
        assert_eq!(complete(&mut world, ana, &upload, list), failed(failure));
    }
    let stored = Response::BlobStored { hash: hash(whole), size: 10, media_type: "text/plain".to_owned() };
    assert_eq!(complete(&mut world, ana, &upload, &[first, second]), stored);
    assert_eq!(&world.blobs.last().unwrap().bytes[..], whole);
    assert!(world.uploads.is_empty());

    // It is finished.
    let finished = [
        part(&mut world, ana, &upload, 1, b"x"),
        complete(&mut world, ana, &upload, &[first, second]),
        world.ask(ana, json!({"action": "abort_blob_upload", "upload_id": upload})),
    ];
    assert_eq!(finished, [const { Response::BlobUploadError { reason: Failure::UnknownUpload } }; 3]);
}

#[test]
fn a_part_that_is_not_what_it_says_is_refused() {
    let (mut world, ana) = world(51);
    let upload = begin(&mut world, ana, json!({"size": 3, "part_size": 3}));
    world.send(ana, put_part("lie", &upload, 1, hash(b"abc"), b"abd"));
    world.settle();
    assert_eq!(world.answer(ana, "lie"), failed(Failure::PartHashMismatch));
    assert_eq!(part(&mut world, ana, &upload, 1, b"abcd"), failed(Failure::PartSizeMismatch));
    assert!(matches!(part(&mut world, ana, &upload, 1, b"abc"), Response::BlobPartStored { .. }));
    assert_eq!(part(&mut world, ana, &upload, 1, b"xyz"), failed(Failure::DuplicatePartConflict));
    assert_eq!(part(&mut world, ana, "another", 1, b"abc"), failed(Failure::UnknownUpload));
    assert!(matches!(
        complete(&mut world, ana, &upload, &[(1, b"abc")]),
        Response::BlobStored { hash: stored, .. } if stored == hash(b"abc")
    ));
}

#[test]
fn a_connection_has_one_upload_and_one_frame_under_way() {
    let (mut world, ana) = world(52);
    let upload = begin(&mut world, ana, json!({"size": 3}));
    let again = json!({"action": "create_blob_upload", "media_type": "a/b", "size": 1});
    assert_eq!(world.ask(ana, again.clone()), failed(Failure::OverPeerBudget));

    world.hold_jobs = true;
    world.send(ana, put_part("first", &upload, 1, hash(b"abc"), b"abc"));
    world.send(ana, put_part("second", &upload, 2, hash(b"d"), b"d"));
    let whole = PutBlobHeader::Put {
        id: "whole".into(),
        media_type: "a/b".into(),
        size: 1,
        sha256: hash(b"d"),
        durability: None,
        purpose: None,
    };
    world.send(ana, frame(whole.clone(), b"d"));
    world.settle();
    for id in ["second", "whole"] {
        assert_eq!(world.answer(ana, id), failed(Failure::TooManyInFlight), "{id}");
    }
    // Given up while a part is on its way: that part belongs to nothing.
    let aborted = Response::BlobUploadAborted { upload_id: upload.clone() };
    assert_eq!(world.ask(ana, json!({"action": "abort_blob_upload", "upload_id": upload})), aborted);
    world.hold_jobs = false;
    world.settle();
    assert_eq!(world.answer(ana, "first"), failed(Failure::UnknownUpload));
    assert!(matches!(world.ask(ana, again), Response::BlobUploadCreated { .. }));
}

#[test]
fn what_is_staged_ends_with_the_connection_and_after_an_hour() {
    let (mut world, ana) = world(53);
    let upload = begin(&mut world, ana, json!({"size": 3}));
    world.pass(Duration::from_secs(60 * 60));
    assert!(world.uploads.is_empty());
    assert_eq!(part(&mut world, ana, &upload, 1, b"abc"), failed(Failure::SessionExpired));

    begin(&mut world, ana, json!({"size": 3}));
    assert_eq!(world.uploads.len(), 1);
    world.leave(ana);
    assert!(world.uploads.is_empty());

    let bob = world.join("bob");
    world.settle();
    world.hold_jobs = true;
    world.request(bob, json!({"action": "create_blob_upload", "media_type": "a/b", "size": 1}));
    world.settle();
    world.leave(bob);
    world.hold_jobs = false;
    world.settle();
    assert!(world.uploads.is_empty(), "an upload that began after its client had left");
}

#[test]
fn a_viewer_stores_nothing() {
    let mut world = World::create(54);
    let eve = world.join_as("eve", Scope::Viewer);
    world.settle();
    world.send(eve, put_part("part", "any", 1, hash(b"a"), b"a"));
    world.settle();
    assert_eq!(world.answer(eve, "part"), failed(Failure::Forbidden));
}
