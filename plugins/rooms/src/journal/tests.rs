//! Journals as they are written, damaged, shortened and found.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use runtimed_protocol::documents::automerge::transaction::Transactable;
use runtimed_protocol::documents::automerge::{AutoCommit, ROOT, ReadDoc as _};
use uuid::Uuid;

use super::entry::{pack, unpack};
use super::file::flush;
use super::format::{HEADER, HeaderError, Stop, entries, header, scan};
use super::*;

const ROOM: Uuid = Uuid::from_u128(7);

/// A journal of records of one entry each.
fn journal(contents: &[Vec<u8>]) -> Vec<u8> {
    let mut journal = header(ROOM).to_vec();
    for (kind, content) in (0..).zip(contents) {
        journal.extend(record(kind, content));
    }
    journal
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut record = Record::new();
    record.push(kind, &[content]);
    record.finish().unwrap().to_vec()
}

/// What the records of a journal hold.
fn contents(bytes: &[u8]) -> (Vec<Vec<u8>>, usize, Stop) {
    let scan = scan(bytes).unwrap();
    assert_eq!(scan.room, ROOM);
    let contents = scan.records.iter().flat_map(|payload| entries(payload)).map(|it| it.content.to_vec());
    (contents.collect(), scan.intact, scan.stop)
}

fn some_contents() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8)
}

proptest! {
    #[test]
    fn what_was_written_is_read(written in some_contents()) {
        let bytes = journal(&written);
        prop_assert_eq!(contents(&bytes), (written, bytes.len(), Stop::End));
    }

    #[test]
    fn a_journal_cut_anywhere_holds_its_first_records(written in some_contents(), cut in any::<prop::sample::Index>()) {
        let bytes = journal(&written);
        let kept = &bytes[..HEADER + cut.index(bytes.len() - HEADER + 1)];
        let (read, intact, stop) = contents(kept);
        prop_assert_eq!(&read[..], &written[..read.len()]);
        prop_assert_eq!(stop, if intact == kept.len() { Stop::End } else { Stop::Torn });
        prop_assert_eq!(contents(&kept[..intact]), (read, intact, Stop::End));
    }

    #[test]
    fn a_flipped_byte_costs_its_record_and_those_behind_it(
        written in some_contents(), place in any::<prop::sample::Index>(), with in 1..=255u8
    ) {
        let mut bytes = journal(&written);
        let place = place.index(bytes.len());
        bytes[place] ^= with;
        if place < HEADER {
            prop_assert!(scan(&bytes).is_err());
        } else {
            let (read, intact, stop) = contents(&bytes);
            prop_assert_eq!(&read[..], &written[..read.len()]);
            prop_assert!(intact <= place && read.len() < written.len());
            let is_last = read.len() + 1 == written.len();
            prop_assert_eq!(stop, if is_last { Stop::Torn } else { Stop::Corrupt });
        }
    }

    #[test]
    fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..300), whole in any::<bool>()) {
        let bytes = if whole { [&header(ROOM)[..], &bytes].concat() } else { bytes };
        let _ = Folded::read(&bytes);
        let _ = fold::compacted(&bytes);
    }
}

#[test]
fn a_journal_of_another_version_is_told_from_a_damaged_one() {
    assert_eq!(scan(b""), Err(HeaderError::Damaged));
    assert_eq!(scan(&header(ROOM)[..HEADER - 1]), Err(HeaderError::Damaged));
    let mut later = header(ROOM);
    later[8] = 2;
    assert_eq!(scan(&later), Err(HeaderError::Damaged), "a version is only believed with its checksum");
    let sum = crc32fast::hash(&later[..HEADER - 4]);
    later[HEADER - 4..].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(scan(&later), Err(HeaderError::Version(2)));
}

/// A journal of a document that gets a key in each record, and of everything else there is.
fn story() -> Vec<Vec<u8>> {
    let mut document = AutoCommit::new();
    document.put(ROOT, "k", 0).unwrap();
    let mut first = Record::new();
    first.meta(&Meta { path: Some("/a.ipynb".into()), ..Meta::default() });
    first.snapshot(1, &document.save());
    first.template(&pack(b"{}").unwrap());
    first.push(200, &[b"of a later daemon"]);
    let mut records = vec![first.finish().unwrap().to_vec()];
    for number in 1..20 {
        let before = document.get_heads();
        document.put(ROOT, "k", number).unwrap();
        let mut record = Record::new();
        record.changes(1, &document.save_after(&before));
        record.file(&FileState { save_sequence: number as u64, ..FileState::default() });
        records.push(record.finish().unwrap().to_vec());
    }
    records
}

fn value(folded: &Folded) -> i64 {
    let document = AutoCommit::load(&folded.documents[1]).unwrap();
    document.get(ROOT, "k").unwrap().unwrap().0.as_i64().unwrap()
}

#[test]
fn a_shortened_journal_says_what_the_long_one_said() {
    let long = [&header(ROOM)[..], &story().concat()].concat();
    let short = fold::compacted(&long).unwrap();
    assert!(short.len() < long.len());
    let (long, mut short) = (Folded::read(&long).unwrap(), Folded::read(&short).unwrap());
    assert_eq!((value(&long), value(&short)), (19, 19));
    let heads = |folded: &Folded| AutoCommit::load(&folded.documents[1]).unwrap().get_heads();
    assert_eq!(heads(&long), heads(&short), "nothing is written anew");
    short.documents.clone_from(&long.documents);
    (short.intact, short.snapshot) = (long.intact, long.snapshot);
    assert_eq!(short, long);
    assert_eq!(unpack(long.template.as_ref().unwrap()).unwrap(), b"{}");
}

#[test]
fn a_journal_is_shortened_while_it_is_written_and_goes_on_after_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.journal");
    let mut records = story().into_iter();
    let mut journal = JournalFile::create(path.clone(), ROOM).unwrap();
    journal.append(&records.next().unwrap()).unwrap();
    // Enough for it to be worth it.
    journal.append(&record(201, &vec![0; 3 << 20])).unwrap();
    let compaction = journal.compaction().unwrap();
    assert!(journal.compaction().is_none(), "one at a time");
    journal.append(&records.next().unwrap()).unwrap();
    let replacement = journal.join(compaction.run()).unwrap().unwrap();
    journal.append(&records.next().unwrap()).unwrap();
    assert_eq!(journal.take_unflushed().len(), 3, "both files, and their folder");
    replacement.run().unwrap();
    journal.append(&records.next().unwrap()).unwrap();
    assert!(journal.give_up_shortening(), "it is there already");
    journal.append(&records.next().unwrap()).unwrap();
    flush(&journal.take_unflushed()).unwrap();
    assert!(journal.take_unflushed().is_empty());

    let folded = Folded::read(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((value(&folded), folded.stop), (4, Stop::End));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    drop(journal);
    fs::write(&path, [&fs::read(&path).unwrap()[..], b"torn"].concat()).unwrap();
    let folded = Folded::read(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((value(&folded), folded.stop), (4, Stop::Torn));
    let mut journal = JournalFile::resume(path.clone(), &folded).unwrap();
    journal.append(&records.next().unwrap()).unwrap();
    let folded = Folded::read(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((value(&folded), folded.stop), (5, Stop::End));
}

#[test]
fn a_journal_is_found_by_its_room_and_by_its_file() {
    let base = tempfile::tempdir().unwrap();
    let folder = JournalFolder::new(base.path());
    let notebook = Path::new("/a.ipynb");
    assert_eq!(folder.of_room(ROOM).unwrap(), None);
    folder.make().unwrap();
    let mut journal = JournalFile::create(folder.path(ROOM, None), ROOM).unwrap();
    journal.append(&record(1, b"{}")).unwrap();
    assert!(JournalFile::create(folder.path(ROOM, None), ROOM).is_err(), "nothing is overwritten");
    assert_eq!(folder.of_room(ROOM).unwrap().as_deref(), Some(journal.path()));
    assert_eq!(folder.of_file(notebook).unwrap(), None);

    journal.rename(folder.path(ROOM, Some(notebook))).unwrap();
    assert_eq!(folder.of_room(ROOM).unwrap().as_deref(), Some(journal.path()));
    assert_eq!(folder.of_file(notebook).unwrap().unwrap().path, journal.path());

    let aside = folder.quarantine(journal.path()).unwrap();
    assert!(aside.starts_with(base.path().join("rooms/quarantine")) && aside.exists());
    assert_eq!(folder.all().unwrap(), []);
}

#[test]
fn only_old_journals_that_say_what_their_file_says_are_swept() {
    let base = tempfile::tempdir().unwrap();
    let folder = JournalFolder::new(base.path());
    folder.make().unwrap();
    let put = |number: u128, notebook: Option<&str>, digest: Option<&str>, unsaved, days: u64| {
        let room = Uuid::from_u128(number);
        let path = folder.path(room, notebook.map(Path::new));
        let mut journal = JournalFile::create(path.clone(), room).unwrap();
        let mut record = Record::new();
        let digest = digest.map(str::to_owned);
        record.file(&FileState { digest, unsaved, ..FileState::default() });
        journal.append(&record.finish().unwrap()).unwrap();
        let written = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 24 * 60 * 60);
        fs::File::options().append(true).open(path).unwrap().set_modified(written).unwrap();
    };
    put(1, Some("/clean.ipynb"), Some("00"), false, 31);
    put(2, Some("/young.ipynb"), Some("00"), false, 29);
    put(3, Some("/unsaved.ipynb"), Some("00"), true, 31);
    put(4, Some("/never saved.ipynb"), None, false, 31);
    put(5, None, Some("00"), false, 31);
    let swept = std::cell::RefCell::new(Vec::new());
    sweep::sweep(&folder, |room, _| swept.borrow_mut().push(room.as_u128()));
    assert_eq!(swept.into_inner(), [1]);

    let aside = [(1, "/clean.ipynb"), (3, "/unsaved.ipynb")].map(|(number, notebook)| {
        folder.set_aside(&folder.path(Uuid::from_u128(number), Some(Path::new(notebook)))).unwrap()
    });
    sweep::sweep(&folder, |_, _| {});
    assert_eq!(aside.map(|path| path.exists()), [false, true], "they were old when they were moved");
}
