//! `rooms`: what clients of notebooks rely on.
//!
//! The kit knows nothing of documents. The peers here say what real clients said: their sync messages are kept as
//! files, which a test of the protocol crate makes and compares.

mod peer;

use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{Bytes, CreateNotebook, JoinTarget, RoomReply, RoomRequest, Rooms};
use serde_json::Value;

use super::calls::{fastest, require_fast};
use crate::bench::{Bench, answered};
use crate::case::{Case, Stop, Verdict, case, require};
use crate::report::Fault;
use crate::subject::Carrier;
use peer::{Peer, SYNC, told_heads};

/// How often a room is asked whether it has come to rest.
const LOOK: Duration = Duration::from_millis(5);
/// How long is watched for what must not happen.
const WATCHING: Duration = Duration::from_millis(200);
/// Frames that a room may still send to a peer without credit: what it has begun to say of each of its documents.
const BEGUN: usize = 64;
/// Bytes a peer says before it looks at what it was granted.
const ENOUGH: u64 = 2 * HELD_BACK;
/// Bytes that may be received and not granted yet: carriers tell of many frames at once. This is what the child
/// carrier gathers.
const HELD_BACK: u64 = 256 << 10;
/// Bytes that a room in a process of its own may send before it hears that they are not taken: the child carrier's
/// window.
const UNDER_WAY: usize = 1 << 20;
/// What a failing question has to change.
const ANSWER: &str = "answer every question about a room that is open";

/// What a client called `a` or `b` says about the notebook.
struct Frames {
    hello: &'static [u8],
    first: &'static [u8],
    second: &'static [u8],
}

/// The first client's messages.
const A: Frames = Frames {
    hello: include_bytes!("rooms/frames/a-hello.bin"),
    first: include_bytes!("rooms/frames/a-first.bin"),
    second: include_bytes!("rooms/frames/a-second.bin"),
};
/// The second client's messages.
const B: Frames = Frames {
    hello: include_bytes!("rooms/frames/b-hello.bin"),
    first: include_bytes!("rooms/frames/b-first.bin"),
    second: include_bytes!("rooms/frames/b-second.bin"),
};

pub(crate) const CASES: &[Case] = &[
    case!("create", "a notebook can be created, found and shut down", create),
    case!("converge", "two peers that write at the same time come to the same notebook", converge),
    case!("disorder", "frames that come twice or out of order change nothing about the outcome", disorder),
    case!("garbage", "frames that make no sense end at most the connection they came from", garbage),
    case!("credit", "what is received is granted again, and no more is sent than is taken", credit),
    case!("detach", "a peer that has left hears nothing more and is counted no more", detach),
    case!("open-file", "the cells of a notebook's file are in its room", open_file),
    case!("refused", "a connection to what is not there is refused with a message", refused),
    case!("close", "closing leaves no room", close),
];

/// The rooms of a plugin that has started.
struct Tested<'a> {
    bench: &'a Bench,
    rooms: Arc<dyn Rooms>,
}

impl<'a> Tested<'a> {
    async fn start(bench: &'a Bench) -> Result<Self, Stop> {
        let plugin = bench.start().await?;
        match plugin.rooms() {
            Some(rooms) => Ok(Self { bench, rooms }),
            None => Err(Fault::new("the plugin has no rooms", "return them from `rooms`").into()),
        }
    }

    /// Brings a peer into a new notebook that is kept nowhere.
    async fn create(&self, name: &str) -> Result<Peer, Stop> {
        let create =
            CreateNotebook { runtime: "python".to_owned(), ephemeral: true, ..CreateNotebook::default() };
        self.join(name, JoinTarget::Create(create)).await
    }

    /// Brings a peer into the notebook of another one.
    async fn join_same(&self, name: &str, other: &Peer) -> Result<Peer, Stop> {
        let notebook_id = other.info.notebook_id.clone();
        let target = JoinTarget::Attach { notebook_id, working_dir: None, initial_metadata: None };
        self.join(name, target).await
    }

    async fn join(&self, name: &str, target: JoinTarget) -> Result<Peer, Stop> {
        let joined = self.bench.call("Rooms::attach", peer::join(&*self.rooms, name, target)).await?;
        answered("Rooms::attach", joined, "let every connection in that names something it may see")
    }

    /// Two peers in one new notebook that have introduced themselves.
    async fn two(&self) -> Result<(Peer, Peer), Stop> {
        let a = self.create("a").await?;
        let b = self.join_same("b", &a).await?;
        a.say(SYNC, A.hello);
        b.say(SYNC, B.hello);
        Ok((a, b))
    }

    async fn detach(&self, peer: &Peer) -> Verdict {
        self.bench.wait("RoomSession::detach", self.bench.session.limits.call, peer.session.detach()).await
    }

    async fn ask(&self, request: RoomRequest) -> Result<RoomReply, Stop> {
        answered("Rooms::ask", self.bench.call("Rooms::ask", self.rooms.ask(request)).await?, ANSWER)
    }

    /// Rooms there are, as ids with the number of their peers.
    async fn list(&self) -> Result<Vec<(String, u64)>, Stop> {
        match self.ask(RoomRequest::List).await? {
            RoomReply::List { rooms } => {
                Ok(rooms.into_iter().map(|room| (room.notebook_id, room.active_peers)).collect())
            }
            other => Err(no_answer("List", &other)),
        }
    }

    /// The sources of a notebook's cells, sorted.
    async fn sources(&self, notebook_id: &str) -> Result<Vec<String>, Stop> {
        let inspect = RoomRequest::Inspect { notebook_id: notebook_id.to_owned() };
        let state = match self.ask(inspect).await? {
            RoomReply::Inspect { state } => state,
            other => return Err(no_answer("Inspect", &other)),
        };
        let cells = state["cells"].as_array().cloned().unwrap_or_default();
        let source = |cell: Value| cell["source"].as_str().unwrap_or_default().to_owned();
        let mut sources: Vec<String> = cells.into_iter().map(source).filter(|it| !it.is_empty()).collect();
        sources.sort();
        Ok(sources)
    }

    /// Waits until something holds. Whoever sends a frame is told by nobody when it has had its effect.
    async fn until(&self, what: &str, holds: impl AsyncFn() -> Result<bool, Stop>) -> Verdict {
        let limit = self.bench.session.limits.call;
        let end = std::time::Instant::now() + limit;
        while !holds().await? {
            require(std::time::Instant::now() < end, || {
                Fault::new(
                    format!("{what} did not come about within {} s", limit.as_secs_f32()),
                    "apply what a peer sends, and tell the others",
                )
            })?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until a notebook has these sources.
    async fn until_written(&self, peer: &Peer, expected: &[&str]) -> Verdict {
        let what = format!("a notebook with {} cells that peers wrote", expected.len());
        self.until(&what, async || Ok(self.sources(&peer.info.notebook_id).await? == expected)).await
    }
}

fn no_answer(question: &str, reply: &RoomReply) -> Stop {
    Fault::new(format!("`Rooms::ask` answered `{question}` with something else"), "answer variant by variant")
        .detail(format!("{reply:?}"))
        .into()
}

async fn create(bench: &Bench) -> Verdict {
    let it = Tested::start(bench).await?;
    let peer = it.create("a").await?;
    let id = peer.info.notebook_id.clone();
    require(!id.is_empty() && peer.info.ephemeral && !peer.info.actor_label.is_empty(), || {
        Fault::new(
            "`Rooms::attach` does not say which notebook it let a connection into",
            "fill in `notebook_id`, `ephemeral` and `actor_label`",
        )
        .detail(format!("{:?}", peer.info))
    })?;
    require(it.list().await? == [(id.clone(), 1)], || {
        Fault::new("`Rooms::ask` does not list a notebook that is open, with its one peer", ANSWER)
    })?;
    it.detach(&peer).await?;
    let gone = RoomRequest::Shutdown { notebook_id: id.clone() };
    let found = matches!(it.ask(gone.clone()).await?, RoomReply::Shutdown { found: true });
    let again = matches!(it.ask(gone).await?, RoomReply::Shutdown { found: false });
    require(found && again && it.list().await?.is_empty(), || {
        Fault::new("`Rooms::ask` did not shut a notebook down", "close the room and forget it")
    })
}

async fn converge(bench: &Bench) -> Verdict {
    let it = Tested::start(bench).await?;
    let (a, b) = it.two().await?;
    a.say(SYNC, A.first);
    b.say(SYNC, B.first);
    a.say(SYNC, A.second);
    b.say(SYNC, B.second);
    let all = ["written by a, first", "written by a, second", "written by b, first", "written by b, second"];
    it.until_written(&a, &all).await?;
    // Each has heard of the other's last change, and both of the same state.
    it.until("that both peers are told of the same notebook", async || {
        let (heard_a, heard_b) = (a.heard_heads(), b.heard_heads());
        let knows = |heard: &[Vec<[u8; 32]>], frame: &[u8]| {
            told_heads(frame).into_iter().flatten().all(|head| heard.iter().flatten().any(|one| *one == head))
        };
        Ok(knows(&heard_a, B.second) && knows(&heard_b, A.second) && heard_a.last() == heard_b.last())
    })
    .await
}

async fn disorder(bench: &Bench) -> Verdict {
    let it = Tested::start(bench).await?;
    let (a, b) = it.two().await?;
    // The second change depends on the first.
    for frame in [A.second, A.second, A.first, A.first, A.hello, A.second, A.first] {
        a.say(SYNC, frame);
    }
    b.say(SYNC, B.first);
    it.until_written(&a, &["written by a, first", "written by a, second", "written by b, first"]).await?;
    require(!a.closed() && !b.closed(), || {
        Fault::new("a connection was closed because a frame came twice", "skip what is known already")
    })
}

async fn garbage(bench: &Bench) -> Verdict {
    let it = Tested::start(bench).await?;
    let witness = it.create("b").await?;
    witness.say(SYNC, B.hello);
    let cut = A.first.len();
    let mut bits = A.first.to_vec();
    bits.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x55);
    let payloads = [
        Vec::new(),
        vec![0],
        vec![0xff; 100],
        b"{\"id\": [], \"action\": null}".to_vec(),
        b"{\"id\": \"1\", \"action\": \"no-such-action\"}".to_vec(),
        bits,
        A.first.iter().copied().take(cut / 2).collect(),
        A.first.iter().copied().take(cut - 1).collect(),
        [A.first, &[0xff; 64]].concat(),
    ];
    for frame_type in (0..=0x0c).chain([0x7f, 0xff]) {
        for payload in &payloads {
            // A connection each: one that is closed over the first frame would hear nothing of the rest.
            let peer = it.join_same("a", &witness).await?;
            bench.at_once("RoomSession::receive, given garbage", || {
                peer.session.receive(frame_type, Bytes::copy_from_slice(payload))
            })?;
            it.detach(&peer).await?;
        }
    }
    witness.say(SYNC, B.first);
    it.until("what a peer wrote while others sent garbage", async || {
        Ok(it.sources(&witness.info.notebook_id).await?.contains(&"written by b, first".to_owned()))
    })
    .await?;
    require(!witness.closed(), || {
        Fault::new(
            "garbage of one connection closed another one",
            "close the connection that it came from, if any",
        )
    })
}

async fn credit(bench: &Bench) -> Verdict {
    let it = Tested::start(bench).await?;
    let a = it.create("a").await?;
    let slow = it.join_same("b", &a).await?;
    a.say(SYNC, A.hello);
    slow.say(SYNC, B.hello);
    it.until("the first frames for a peer", async || Ok(slow.frames() > 0)).await?;
    while a.said() < ENOUGH {
        a.say(SYNC, A.first);
    }
    let granted = async || Ok(a.said() - a.granted().min(a.said()) <= HELD_BACK);
    it.until("that what was received is granted again", granted).await?;
    require(a.granted() <= a.said(), || {
        Fault::new(
            format!("a peer sent {} bytes and was granted {}", a.said(), a.granted()),
            "grant what was handled, and nothing else",
        )
    })?;
    // From here on nobody takes what is sent to the other one.
    slow.set_credit(0);
    let (there, bytes) = (slow.frames(), slow.heard());
    for _ in 0..BEGUN {
        a.say(SYNC, A.second);
        a.say(SYNC, A.first);
        slow.say(SYNC, B.hello);
    }
    it.until_written(&a, &["written by a, first", "written by a, second"]).await?;
    let under_way = if bench.session.subject.carrier() == Carrier::Child { UNDER_WAY } else { 0 };
    require(slow.frames() - there <= BEGUN || slow.heard() - bytes <= under_way, || {
        Fault::new(
            format!("{} frames were sent to a peer that takes none", slow.frames() - there),
            "stop when `PeerLink::send` leaves no credit, and bring the peer up to date when it is writable",
        )
    })?;
    slow.set_credit(i64::MAX);
    let there = slow.frames();
    require_fast(
        "RoomSession::writable",
        fastest(bench, "RoomSession::writable", || slow.session.writable())?,
    )?;
    slow.say(SYNC, B.first);
    it.until("a frame for a peer that takes some again", async || Ok(slow.frames() > there)).await?;
    let receive = || {
        slow.session.receive(0xff, Bytes::new());
    };
    require_fast("RoomSession::receive", fastest(bench, "RoomSession::receive", receive)?)
}

async fn detach(bench: &Bench) -> Verdict {
    let it = Tested::start(bench).await?;
    let (a, b) = it.two().await?;
    let id = a.info.notebook_id.clone();
    require(it.list().await? == [(id.clone(), 2)], || {
        Fault::new("two peers are not counted as two", ANSWER)
    })?;
    it.detach(&b).await?;
    require(it.list().await? == [(id, 1)], || {
        Fault::new("a peer that has left is still counted", "forget a peer before `detach` returns")
    })?;
    let there = b.frames();
    a.say(SYNC, A.first);
    it.until_written(&a, &["written by a, first"]).await?;
    tokio::time::sleep(WATCHING).await;
    require(b.frames() == there, || {
        Fault::new("a peer that has left is still sent frames", "forget a peer before `detach` returns")
    })?;
    bench.at_once("RoomSession::receive, after detach", || b.say(SYNC, B.first))?;
    bench.at_once("drop of a session", || drop(b))?;
    it.until_written(&a, &["written by a, first"]).await
}

async fn open_file(bench: &Bench) -> Verdict {
    let it = Tested::start(bench).await?;
    let path = bench.folder.join("notebook.ipynb");
    let text = r#"{"cells": [{"cell_type": "markdown", "id": "m", "metadata": {}, "source": ["from ", "a file"]}],
                  "metadata": {}, "nbformat": 4, "nbformat_minor": 5}"#;
    let made = std::fs::create_dir_all(&bench.folder).and_then(|()| std::fs::write(&path, text));
    made.map_err(|error| Stop::skipped(format!("`{}` could not be written: {error}", path.display())))?;
    let peer = it.join("a", JoinTarget::Open { path, working_dir: None }).await?;
    it.until_written(&peer, &["from a file"]).await
}

async fn refused(bench: &Bench) -> Verdict {
    let it = Tested::start(bench).await?;
    let target = JoinTarget::Attach {
        notebook_id: "00000000-0000-4000-8000-000000000000".to_owned(),
        working_dir: None,
        initial_metadata: None,
    };
    let joined = bench.call("Rooms::attach", peer::join(&*it.rooms, "a", target)).await?;
    let Err(error) = joined else {
        return Err(Fault::new(
            "`Rooms::attach` let a connection into a notebook that does not exist",
            "fail with `NotFound`",
        )
        .into());
    };
    require(!error.message.trim().is_empty() && it.list().await?.is_empty(), || {
        Fault::new(
            "`Rooms::attach` refused a connection without a message, or left a room behind",
            "say why, and create nothing for a connection that is refused",
        )
    })
}

async fn close(bench: &Bench) -> Verdict {
    let it = Tested::start(bench).await?;
    let (a, _b) = it.two().await?;
    a.say(SYNC, A.first);
    let closed = it.ask(RoomRequest::Close).await?;
    require(closed == RoomReply::Closed && it.list().await?.is_empty(), || {
        Fault::new("`Rooms::ask` answered `Close` and left rooms open", "close every room before answering")
    })
}
