//! Every target on its seeds, on what fuzzers found worth keeping, and on some thousand mutations of both.
//!
//! A few seconds of fuzzing on every run, without instrumentation; `cargo xtask fuzz` is for hours. Other numbers each
//! time; `PROPTEST_RNG_SEED` repeats them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a step that fails is a failed test"
)]

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use runtimed_fuzz::{TARGETS, corpus};

/// One change to an input.
#[derive(Debug, Clone)]
enum Mutation {
    Set(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Repeat(Index, usize),
    Insert(Index, Vec<u8>),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => any::<Index>().prop_map(Mutation::Cut),
        1 => (any::<Index>(), 1..20_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        1 => (any::<Index>(), 1..20_usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        1 => (any::<Index>(), prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..9),
            Just(vec![0xff; 4]),
            Just(b"null".to_vec()),
            Just(b"-1e999".to_vec()),
        ]).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Remove(at, length) => {
                let at = at.index(bytes.len());
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Self::Repeat(at, length) => {
                let at = at.index(bytes.len());
                let piece = bytes[at..(at + length).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            Self::Insert(at, piece) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
}

#[test]
fn nothing_that_is_read_makes_a_reader_panic() {
    for target in TARGETS {
        let mut inputs = (target.seeds)();
        assert!(!inputs.is_empty(), "{} learns from nothing", target.name);
        let kept =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name).with_extension("txt");
        if kept.exists() {
            inputs.extend(corpus::unpack(&std::fs::read_to_string(&kept).unwrap()).unwrap());
        }
        inputs.push(Vec::new());
        for input in &inputs {
            (target.run)(input);
        }
        let case = (any::<Index>(), proptest::collection::vec(mutation(), 1..6));
        let config = Config { cases: 3000, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&case, |(which, mutations)| {
                let mut input = which.get(&inputs).clone();
                mutations.iter().for_each(|mutation| mutation.apply(&mut input));
                (target.run)(&input);
                Ok(())
            })
            .unwrap_or_else(|failure| panic!("{}: {failure}", target.name));
    }
}
