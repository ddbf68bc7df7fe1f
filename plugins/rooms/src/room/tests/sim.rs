//! Random lives of a room: windows that edit, run, move and delete, that are cut off and come back with what they
//! had; a daemon that dies between any two effects; a disk that fails.
//!
//! For: finding what nobody thought of. `cargo xtask sim` runs thousands; `cargo xtask sim --seed N` one again.
//! Promises: a seed is one life, always the same; a life that fails is cut down to the deeds it takes.
//!
//! What holds in every life: what a window was told the room has is there after the daemon died, unless the journal
//! was out of order and said so; in the end all windows and the room have the same; a line is there once, in the cell
//! it was typed into, unless somebody deleted the cell; every request has its answer and every execution its end; what
//! a cell printed that ran to its end is there, once and in order, whatever daemons it outlived; widgets show what the
//! kernel has, whoever moved them last.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::time::Duration;

use runtimed_plugin_api::PluginError;
use runtimed_protocol::documents::notebook::{NewCell, Place};
use runtimed_protocol::documents::output::ContentRef;
use runtimed_protocol::documents::runtime_state::Status;
use runtimed_protocol::documents::{Document as _, Output, RuntimeStateDoc};
use runtimed_protocol::frame::FrameType;
use runtimed_protocol::response::NotebookResponse as Response;
use serde_json::json;

use super::client::Client;
use super::world::{World, seeded};
use crate::ids::PeerId;
use crate::room::save::SaveFailure;

/// Lives in an ordinary test run; `cargo xtask sim` says how many it wants.
const RUNS: u64 = 150;
/// Deeds of one life.
const DEEDS: usize = 70;
/// Windows at once.
const WINDOWS: usize = 20;

#[test]
fn whatever_happens_nothing_is_lost_and_all_agree() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let from = number("RUNT_SIM_FROM").unwrap_or(1);
    let runs = number("RUNT_SIM_RUNS").unwrap_or(RUNS);
    for seed in from..from + runs {
        let deeds = deeds(seed);
        if let Err(what) = lives(seed, &deeds) {
            let (deeds, what) = shrunk(seed, deeds, what);
            let deeds: Vec<String> = deeds.iter().map(|deed| format!("    {deed:?}")).collect();
            panic!("{what}\nafter\n{}\nreplay with: cargo xtask sim --seed {seed}", deeds.join("\n"));
        }
    }
}

/// Something that happens. Numbers stand for whatever there is to choose from at that time.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Join,
    /// For good, or to come back at once with what it has.
    Leave {
        who: usize,
        back: bool,
    },
    Cut {
        who: usize,
    },
    Mend {
        who: usize,
    },
    /// Takes nothing, or only what is urgent.
    Slow {
        who: usize,
        urgent: bool,
    },
    Add {
        who: usize,
        at: usize,
    },
    Type {
        who: usize,
        cell: usize,
        line: usize,
        word: usize,
    },
    Move {
        who: usize,
        cell: usize,
        to: usize,
    },
    Delete {
        who: usize,
        cell: usize,
    },
    Clear {
        who: usize,
        cell: usize,
    },
    Run {
        who: usize,
        cell: usize,
    },
    /// Moves a widget; the kernel may do so as well.
    Drag {
        who: usize,
        widget: usize,
        kernel: bool,
    },
    RunAll {
        who: usize,
    },
    Launch {
        who: usize,
    },
    Interrupt {
        who: usize,
    },
    Shutdown {
        who: usize,
    },
    Save {
        who: usize,
        named: bool,
    },
    Steps(usize),
    Pass(u64),
    KillKernel,
    NoEnvironment,
    SaveFails,
    Disk {
        full: bool,
    },
    HoldJobs(bool),
    /// The daemon dies after so many effects; its kernel may outlive it.
    Crash {
        after: usize,
        outlives: bool,
    },
}

fn deeds(seed: u64) -> Vec<Deed> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = move || {
        // xorshift64*.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize
    };
    let mut deeds = vec![Deed::Join, Deed::Join, Deed::Steps(40)];
    for _ in 0..DEEDS {
        let who = random();
        deeds.push(match random() % 64 {
            0..=2 => Deed::Join,
            3..=5 => Deed::Leave { who, back: random() % 3 > 0 },
            6..=7 => Deed::Cut { who },
            8..=10 => Deed::Mend { who },
            11 => Deed::Slow { who, urgent: random() % 2 == 0 },
            12..=15 => Deed::Add { who, at: random() },
            16..=27 => Deed::Type { who, cell: random(), line: random(), word: random() },
            28..=29 => Deed::Move { who, cell: random(), to: random() },
            30 => Deed::Delete { who, cell: random() },
            31 => Deed::Clear { who, cell: random() },
            32..=36 => Deed::Run { who, cell: random() },
            37 => Deed::RunAll { who },
            38 => Deed::Launch { who },
            39 => Deed::Interrupt { who },
            40 => Deed::Shutdown { who },
            41..=42 => Deed::Save { who, named: random() % 3 == 0 },
            43 => Deed::KillKernel,
            44 => Deed::NoEnvironment,
            45 => Deed::SaveFails,
            46 => Deed::Disk { full: true },
            47..=48 => Deed::Disk { full: false },
            49 => Deed::HoldJobs(random() % 2 == 0),
            50..=52 => Deed::Pass((random() % 20_000) as u64),
            53..=55 => Deed::Crash { after: random() % 40, outlives: random() % 4 > 0 },
            56..=58 => Deed::Drag { who, widget: random(), kernel: random() % 2 == 0 },
            _ => Deed::Steps(random() % 60),
        });
    }
    deeds
}

/// One life, and what went wrong in it.
fn lives(seed: u64, deeds: &[Deed]) -> Result<(), String> {
    thread_local!(static PLACE: RefCell<String> = const { RefCell::new(String::new()) });
    let hook = take_hook();
    // While it is cut down it fails many times; the last is told.
    set_hook(Box::new(|panic| {
        PLACE.set(panic.location().map(ToString::to_string).unwrap_or_default());
    }));
    let end = catch_unwind(AssertUnwindSafe(|| {
        let mut life = Life::new(seed);
        deeds.iter().for_each(|deed| life.happens(*deed));
        life.ends();
    }));
    set_hook(hook);
    end.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        format!("{}: {text}", PLACE.take())
    })
}

/// As few of the deeds as it takes to fail, and how they fail.
fn shrunk(seed: u64, mut deeds: Vec<Deed>, mut what: String) -> (Vec<Deed>, String) {
    let mut chunk = deeds.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < deeds.len() {
            let mut fewer = deeds.clone();
            fewer.drain(at..(at + chunk).min(deeds.len()));
            match lives(seed, &fewer) {
                Err(error) => (deeds, what) = (fewer, error),
                Ok(()) => at += chunk,
            }
        }
        chunk /= 2;
    }
    (deeds, what)
}

struct Life {
    world: World,
    peers: Vec<PeerId>,
    /// Every line that was typed, and the cell it was typed into.
    lines: BTreeMap<String, String>,
    /// Who typed them.
    typed: BTreeMap<String, PeerId>,
    /// Those that may be gone: nobody has them who comes back, and the journal could not be written.
    forgivable: BTreeSet<String>,
    deleted: BTreeSet<String>,
    /// Requests of each window since it connected.
    asked: BTreeMap<PeerId, Vec<String>>,
    made: usize,
    /// A daemon died with or after its kernel, or could not tell the next one about it.
    kernels_lost: bool,
}

impl Life {
    fn new(seed: u64) -> Self {
        let world = match seed % 2 {
            0 => World::create(seed),
            _ => World::open(seed, Some("/a.ipynb"), seeded()),
        };
        Self {
            world,
            peers: Vec::new(),
            lines: BTreeMap::new(),
            typed: BTreeMap::new(),
            forgivable: BTreeSet::new(),
            deleted: BTreeSet::new(),
            asked: BTreeMap::new(),
            made: 0,
            kernels_lost: false,
        }
    }

    fn happens(&mut self, deed: Deed) {
        match deed {
            Deed::Join if self.peers.len() < WINDOWS => {
                let peer = self.world.join("ana");
                self.peers.push(peer);
            }
            Deed::Join => {}
            Deed::Leave { who, back } => {
                let Some(peer) = self.who(who) else { return };
                if back {
                    self.comes_back(peer);
                } else {
                    self.goes(peer);
                }
            }
            Deed::Cut { who } => self.world.cut.extend(self.who(who)),
            Deed::Mend { who } => {
                if let Some(peer) = self.who(who) {
                    self.mend(peer);
                }
            }
            Deed::Slow { who, urgent: false } => self.world.slow.extend(self.who(who)),
            Deed::Slow { who, urgent: true } => self.world.behind.extend(self.who(who)),
            Deed::Add { who, at } => {
                let Some(peer) = self.who(who) else { return };
                self.made += 1;
                let id = format!("cell-{}", self.made);
                self.edit(peer, |client| {
                    let cells = client.notebook.cell_ids();
                    let place = cells.get(at % (cells.len() + 1)).map_or(Place::Start, |it| Place::After(it));
                    let cell = NewCell { id, cell_type: "code".to_owned(), ..NewCell::default() };
                    client.notebook.insert_cell(place, &cell).unwrap();
                });
            }
            Deed::Type { who, cell, line, word } => self.types(who, cell, line, word),
            Deed::Move { who, cell, to } => {
                let Some((peer, cell)) = self.cell(who, cell) else { return };
                self.edit(peer, |client| {
                    let others: Vec<String> =
                        client.notebook.cell_ids().into_iter().filter(|other| *other != cell).collect();
                    let place =
                        others.get(to % (others.len() + 1)).map_or(Place::Start, |it| Place::After(it));
                    client.notebook.move_cell(&cell, place).unwrap();
                });
            }
            Deed::Delete { who, cell } => {
                let Some((peer, cell)) = self.cell(who, cell) else { return };
                self.deleted.insert(cell.clone());
                self.edit(peer, |client| assert!(client.notebook.delete_cell(&cell).unwrap()));
            }
            Deed::Clear { who, cell } => {
                let Some((peer, cell)) = self.cell(who, cell) else { return };
                self.edit(peer, |client| client.notebook.clear_outputs(&cell).unwrap());
            }
            Deed::Run { who, cell } => {
                let Some((peer, cell)) = self.cell(who, cell) else { return };
                let heads = self.world.client(peer).heads();
                self.ask(peer, json!({"action": "execute_cell", "cell_id": cell, "required_heads": heads}));
            }
            Deed::Drag { who, widget, kernel } => self.drags(who, widget, kernel),
            Deed::RunAll { who } => self.asks(who, json!({"action": "run_all_cells"})),
            Deed::Launch { who } => {
                self.asks(who, json!({"action": "launch_kernel", "kernel_type": "", "env_source": ""}));
            }
            Deed::Interrupt { who } => self.asks(who, json!({"action": "interrupt_execution"})),
            Deed::Shutdown { who } => self.asks(who, json!({"action": "shutdown_kernel"})),
            Deed::Save { who, named } => {
                let mut request = json!({"action": "save_notebook", "format_cells": false});
                if named {
                    request["path"] = json!("/b.ipynb");
                }
                self.asks(who, request);
            }
            Deed::Steps(steps) => {
                (0..steps).all(|_| self.world.step());
            }
            Deed::Pass(millis) => self.world.pass(Duration::from_millis(millis)),
            Deed::KillKernel if self.world.kernel.is_some() => self.world.kill_kernel(),
            Deed::KillKernel => {}
            Deed::NoEnvironment => {
                self.world.no_environment = Some(PluginError::unavailable("there is none"));
            }
            Deed::SaveFails => self.world.no_saves.push_back(SaveFailure::Io("the disk is full".to_owned())),
            Deed::Disk { full } => self.world.no_journal = full,
            Deed::HoldJobs(hold) => self.world.hold_jobs = hold,
            Deed::Crash { after, outlives } => self.crashes(after, outlives),
        }
        if self.world.dissolved {
            // Nobody was there for long: it sleeps, and is woken by whoever comes.
            self.revives(true);
        }
    }

    fn who(&self, who: usize) -> Option<PeerId> {
        self.peers.get(who % self.peers.len().max(1)).copied()
    }

    /// A window, and a cell it sees.
    fn cell(&mut self, who: usize, cell: usize) -> Option<(PeerId, String)> {
        let peer = self.who(who)?;
        let cells = self.world.client(peer).notebook.cell_ids();
        Some((peer, cells.get(cell % cells.len().max(1))?.clone()))
    }

    fn edit(&mut self, peer: PeerId, edit: impl FnOnce(&mut Client)) {
        let client = self.world.client(peer);
        edit(client);
        client.notebook.commit();
        let frame = client.sync_frame(FrameType::NOTEBOOK_SYNC);
        self.world.send(peer, frame);
    }

    /// Puts a line of its own between the others.
    fn types(&mut self, who: usize, cell: usize, line: usize, word: usize) {
        const WORDS: [&str; 11] = [
            "print", "print", "value", "late", "picture", "fail", "loop", "print", "widget", "widget",
            "close",
        ];
        let Some((peer, cell)) = self.cell(who, cell) else { return };
        self.made += 1;
        let typed = format!("{} {}", WORDS[word % WORDS.len()], self.made);
        self.lines.insert(typed.clone(), cell.clone());
        self.typed.insert(typed.clone(), peer);
        self.edit(peer, |client| {
            let source = client.notebook.source(&cell).unwrap();
            let mut lines: Vec<&str> = source.split_inclusive('\n').collect();
            let typed = format!("{typed}\n");
            lines.insert(line % (lines.len() + 1), &typed);
            client.notebook.set_source(&cell, &lines.concat()).unwrap();
        });
    }

    /// Gives a widget a new value, from a window and perhaps from a thread of the kernel.
    fn drags(&mut self, who: usize, widget: usize, kernel: bool) {
        self.made += 1;
        let Some(peer) = self.who(who) else { return };
        let comms = self.world.client(peer).comms.comm_ids();
        let Some(comm) = comms.get(widget % comms.len().max(1)).cloned() else { return };
        let frame = self.world.client(peer).edit_widget(&comm, json!({"value": 1_000_000 + self.made}));
        self.world.send(peer, frame);
        if kernel && self.world.kernel.is_some() {
            let launch = self.world.launch();
            self.world.widget(launch, "", ["move", "frame"][self.made % 2], widget as u64);
        }
    }

    fn asks(&mut self, who: usize, request: serde_json::Value) {
        if let Some(peer) = self.who(who) {
            self.ask(peer, request);
        }
    }

    fn ask(&mut self, peer: PeerId, request: serde_json::Value) {
        let id = self.world.request(peer, request);
        self.asked.entry(peer).or_default().push(id);
    }

    fn mend(&mut self, peer: PeerId) {
        self.world.cut.remove(&peer);
        self.world.catch_up(peer);
    }

    fn goes(&mut self, peer: PeerId) {
        // What only it has is nobody's loss.
        let room = self.world.core.documents.notebook.to_json().to_string();
        let own =
            self.typed.iter().filter(|(line, who)| **who == peer && !room.contains(&format!("{line}\\n")));
        self.forgivable.extend(own.map(|(line, _)| line.clone()));
        self.forget(peer);
        self.world.leave(peer);
    }

    fn comes_back(&mut self, peer: PeerId) {
        let client = self.world.clients.remove(&peer).unwrap();
        self.forget(peer);
        self.world.leave(peer);
        self.returns(peer, client);
    }

    fn returns(&mut self, before: PeerId, client: Client) {
        let peer = self.world.rejoin(client);
        self.typed.values_mut().filter(|who| **who == before).for_each(|who| *who = peer);
        self.peers.push(peer);
    }

    fn forget(&mut self, peer: PeerId) {
        self.peers.retain(|other| *other != peer);
        self.asked.remove(&peer);
        self.world.cut.remove(&peer);
        self.world.slow.remove(&peer);
        self.world.behind.remove(&peer);
    }

    fn crashes(&mut self, after: usize, outlives: bool) {
        self.world.effects_left = Some(after);
        while !self.world.is_dead() && self.world.step() {}
        self.kernels_lost |= !outlives || !self.world.knows_kernel();
        self.revives(outlives);
    }

    /// The daemon is dead, and another begins where it ended.
    fn revives(&mut self, outlives: bool) {
        let world = &mut self.world;
        let mut clients = std::mem::take(&mut world.clients);
        let degraded = world.no_journal
            || world.core.documents.runtime.file_checkpoint().source_issue_kind == "degraded";
        // What the kernel was asked last, or that there is another, may not be in the journal.
        self.kernels_lost |= degraded;
        let (full, held, saves) = (world.no_journal, world.hold_jobs, std::mem::take(&mut world.no_saves));
        let seed = std::mem::replace(world, World::create(0));
        self.world = if outlives { seed.outlived() } else { seed.reopen() };
        (self.world.no_journal, self.world.hold_jobs, self.world.no_saves) = (full, held, saves);
        if degraded {
            // Said to be in danger: what the living do not have may be gone.
            clients.values_mut().for_each(|client| client.told.clear());
            self.forgivable
                .extend(self.typed.keys().filter(|line| !self.peers.contains(&self.typed[*line])).cloned());
        } else {
            self.nothing_told_is_lost(&clients);
        }
        self.peers.clear();
        self.asked.clear();
        for (peer, client) in clients {
            self.returns(peer, client);
        }
    }

    fn nothing_told_is_lost(&mut self, clients: &BTreeMap<PeerId, Client>) {
        let documents = &mut self.world.core.documents;
        for client in clients.values() {
            for (frame_type, heads) in &client.told {
                let there = match *frame_type {
                    FrameType::NOTEBOOK_SYNC => documents.notebook.contains(heads),
                    FrameType::RUNTIME_STATE_SYNC => documents.runtime.contains(heads),
                    _ => documents.comms.contains(heads),
                };
                assert!(there, "what a window was told of document {frame_type} is gone after a crash");
            }
            for answer in client.answers.values() {
                if let Response::CellQueued(queued) = answer {
                    let id = &queued.execution_id;
                    let known = is_there(&documents.runtime, id);
                    assert!(
                        known || trimmed(&documents.runtime),
                        "the execution {id} was accepted and is gone"
                    );
                }
            }
        }
    }

    /// Everything heals, everybody comes back, and time passes: now all must agree.
    fn ends(&mut self) {
        self.world.no_journal = false;
        self.world.hold_jobs = false;
        self.world.no_environment = None;
        self.world.no_saves.clear();
        for peer in self.peers.clone() {
            self.mend(peer);
        }
        if self.peers.is_empty() {
            self.happens(Deed::Join);
        }
        self.world.settle();
        // Whatever loops is stopped; a kernel that is gone is no error.
        for _ in 0..2 {
            self.asks(0, json!({"action": "interrupt_execution"}));
            self.world.pass(Duration::from_secs(60));
        }
        let journaled = self.world.journaled();
        let documents = &mut self.world.core.documents;
        assert_eq!(journaled, documents.heads(), "the journal lacks something in the end");
        let (notebook, runtime) = (documents.notebook.heads(), documents.runtime.heads());
        let comms = documents.comms.heads();
        if !self.world.forgetful {
            let value = |comm: String| Some((comm.clone(), documents.comms.state(&comm)?["value"].clone()));
            let shown: BTreeMap<String, _> =
                documents.comms.comm_ids().into_iter().filter_map(value).collect();
            let widgets = self.world.kernel.as_ref().map(|kernel| kernel.widgets.clone());
            assert_eq!(shown, widgets.unwrap_or_default(), "widgets are not what the kernel has");
            assert!(
                documents.runtime.comm_ids().iter().eq(shown.keys()),
                "other widgets are there than have a state"
            );
        }
        for (peer, client) in &mut self.world.clients {
            assert!(!self.world.closed.contains(peer), "a connection was closed");
            assert_eq!(client.notebook.heads(), notebook, "a window has another notebook");
            assert_eq!(client.runtime.heads(), runtime, "a window has another runtime state");
            assert_eq!(client.comms.heads(), comms, "a window has other widgets");
            assert!(client.is_ready(), "a window is never ready: {:?}", client.status);
            for id in self.asked.get(peer).into_iter().flatten() {
                assert!(client.answers.contains_key(id), "{id} has no answer");
            }
        }
        let notebook = &self.world.core.documents.notebook;
        for (line, cell) in &self.lines {
            let source = notebook.source(cell);
            let count = source.iter().flat_map(|source| source.lines()).filter(|it| *it == line).count();
            let gone = self.deleted.contains(cell) || self.forgivable.contains(line);
            assert!(count == 1 || (count == 0 && gone), "`{line}` is {count} times in {cell}: {source:?}");
        }
        let runtime = &self.world.core.documents.runtime;
        for id in runtime.execution_ids() {
            let status = runtime.execution(&id).unwrap().status;
            assert!(status.is_terminal(), "{id} is {status:?} in the end");
            self.shows_what_it_said(&id);
        }
    }
}

impl Life {
    /// Of an execution that ran to its end, the outputs are what the kernel said, once and in order.
    fn shows_what_it_said(&self, id: &str) {
        let runtime = &self.world.core.documents.runtime;
        let execution = runtime.execution(id).unwrap();
        let (mut printed, mut values, mut pictures) = (String::new(), Vec::new(), 0);
        for entry in runtime.outputs(id) {
            match Output::from_json(&entry.manifest).unwrap() {
                Output::Stream { text: ContentRef::Inline { inline }, .. } => printed += &inline,
                Output::ExecuteResult { .. } => {
                    values.push(entry.manifest["data"]["text/plain"]["inline"].clone())
                }
                Output::Display { .. } => pictures += 1,
                Output::Error { ename, .. } if ename == "DaemonEnded" => {
                    assert!(self.kernels_lost, "{id} was given up though its kernel was there");
                }
                _ => {}
            }
        }
        if execution.status == Status::Done {
            let source = execution.source.unwrap_or_default();
            let said = |word| source.lines().filter_map(move |line| line.strip_prefix(word));
            let prints: String = said("print ").map(|text| format!("{text}\n")).collect();
            // The kernel may have been killed before its threads were done.
            let all: String =
                prints.clone() + &said("late ").map(|text| format!("{text}\n")).collect::<String>();
            assert!(all.starts_with(&printed) && printed.starts_with(&prints), "{id} printed {printed:?}");
            assert!(said("value ").eq(values.iter().map(|value| value.as_str().unwrap())), "values of {id}");
            assert_eq!(said("picture").count(), pictures, "pictures of {id}");
        }
    }
}

fn is_there(runtime: &RuntimeStateDoc, execution: &str) -> bool {
    runtime.execution(execution).is_some()
}

/// Whether so much has run that executions have left the document.
fn trimmed(runtime: &RuntimeStateDoc) -> bool {
    runtime.execution_ids().len() > crate::room::superseded::KEPT
}
