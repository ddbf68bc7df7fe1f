//! A room, its clients, a scripted kernel and everything slow, in one thread and from one seed.
//!
//! For: running the core through whatever can happen, thousands of times a second.
//! Promises: what one source sends arrives in order; between the sources the seed decides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use runtimed_plugin_api::{
    Channel, EnvNeed, ExitReport, JupyterMessage, KernelKind, Lease, PluginError, Release, Sequence,
    TrustVerdict,
};
use runtimed_protocol::documents::automerge::ChangeHash;
use runtimed_protocol::frame::FrameType;
use runtimed_protocol::response::NotebookResponse;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::client::Client;
use crate::ids::{Ids, JobId, LaunchId, PeerId};
use crate::journal::Folded;
use crate::journal::format::{HEADER, Stop, header};
use crate::outputs::NewBlob;
use crate::records::ExecutionRecord;
use crate::reopen;
use crate::room::choice;
use crate::room::copies::{Copied, NewCopy};
use crate::room::core::{Content, Opening, RoomCore};
use crate::room::event::{Effect, Event};
use crate::room::kernel_message::KernelRequest;
use crate::room::moment::Moment;
use crate::room::outside::{FileVersion, Seen};
use crate::room::peers::{Identity, Scope};
use crate::room::revive::{Actors, Left, Recovered};
use crate::room::save::{SaveFailure, SavePlan, Written};

/// How long the kernel stays without clients.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);

pub(super) struct World {
    pub(super) core: RoomCore,
    /// How often the room was brought back.
    life: u64,
    pub(super) now: Moment,
    pub(super) clients: BTreeMap<PeerId, Client>,
    /// Frames on their way to the room.
    to_room: BTreeMap<PeerId, VecDeque<(u8, Bytes)>>,
    /// Frames on their way to the clients.
    to_clients: BTreeMap<PeerId, VecDeque<(u8, Bytes)>>,
    /// What the kernel has said and the room has not heard.
    from_kernel: VecDeque<(LaunchId, Sequence, Channel, JupyterMessage)>,
    /// Slow work that has ended.
    jobs: VecDeque<Event>,
    pub(super) kernel: Option<Kernel>,
    pub(super) kernels_started: u32,
    /// What the last of them was told by its notebook.
    pub(super) options: Json,
    pub(super) acquired: u32,
    /// Where the last environment was wanted from.
    pub(super) acquired_for: String,
    pub(super) released: Vec<Release>,
    pub(super) closed: BTreeSet<PeerId>,
    /// Bytes of handled frames.
    pub(super) granted: BTreeMap<PeerId, usize>,
    pub(super) records: Vec<ExecutionRecord>,
    pub(super) saved: Vec<SavePlan>,
    /// What was written, by path, in former lives as well; what a degraded journal did not get to know is left out.
    files: BTreeMap<PathBuf, FileVersion>,
    /// What saves write when the room knows, and where.
    writing: BTreeMap<JobId, (PathBuf, FileVersion)>,
    /// What looks at the file find; what is known, at the end.
    pub(super) seen: VecDeque<Seen>,
    pub(super) blobs: Vec<NewBlob>,
    /// Copies that were opened, and of which room.
    pub(super) copies: Vec<(Uuid, Copied)>,
    /// The files of uploads in parts.
    pub(super) uploads: BTreeMap<Uuid, Vec<u8>>,
    pub(super) dissolved: bool,
    /// Events that follow from effects; they come first.
    next: VecDeque<Event>,
    /// What is on disk.
    pub(super) journal: Vec<u8>,
    /// While set, nothing can be appended there.
    pub(super) no_journal: bool,
    /// Something was not appended there: another daemon may not know what the kernel is doing.
    pub(super) forgetful: bool,
    /// Clients that take nothing at the moment: what is sent to them congests.
    pub(super) slow: BTreeSet<PeerId>,
    /// Clients that take only what is urgent: it overtakes the rest, which congests.
    pub(super) behind: BTreeSet<PeerId>,
    /// Clients whose connections pass nothing, either way.
    pub(super) cut: BTreeSet<PeerId>,
    /// How many effects are still carried out; then the daemon is dead.
    pub(super) effects_left: Option<usize>,
    /// What the next acquire fails with.
    pub(super) no_environment: Option<PluginError>,
    /// What the host says when it is asked about what the notebook declares.
    pub(super) verdict: TrustVerdict,
    /// What it says instead, once.
    pub(super) no_verdict: Option<PluginError>,
    /// What it was asked, and whether that was an approval.
    pub(super) asked: Vec<(EnvNeed, bool)>,
    /// The project's files that are watched.
    pub(super) watched: Vec<PathBuf>,
    /// What the next start of a kernel fails with.
    pub(super) no_kernel: Option<PluginError>,
    /// Every kernel there is beside Python.
    pub(super) installed: Vec<KernelKind>,
    /// What the next look for kernels fails with.
    pub(super) no_kernels: Option<PluginError>,
    /// What the next save fails with.
    pub(super) no_saves: VecDeque<SaveFailure>,
    /// While set, slow work does not end.
    pub(super) hold_jobs: bool,
    pub(super) ids: Ids,
    random: u64,
}

/// A kernel that reads its lines from the source: `print x`, `value x`, `fail`, `loop`, `picture`,
/// `display id x`, `update id x`, and `late x`, which a thread prints when the cell is done; `widget n`, which opens the
/// widget `wN`, and `move n`, `frame n`, `close n` and `call n`, which give one of those that are open the value n, or n as
/// bytes, close it and send it n; one a line.
pub(super) struct Kernel {
    launch: LaunchId,
    count: i64,
    /// Whether it was ever told anything: before that it ends with its daemon.
    accepted: bool,
    /// Everything it said that nobody acknowledged, by number.
    unacknowledged: BTreeMap<Sequence, (Channel, JupyterMessage)>,
    said: Sequence,
    /// Requests it got.
    requests: BTreeSet<String>,
    /// Those it has not begun.
    backlog: VecDeque<KernelRequest>,
    /// The request of a cell that never ends by itself.
    looping: Option<String>,
    /// The code it was sent, in order.
    pub(super) ran: Vec<String>,
    /// The values of its widgets.
    pub(super) widgets: BTreeMap<String, Json>,
    /// All it ever opened: no two have the same id.
    opened: BTreeSet<u64>,
    /// What clients told them, in order.
    pub(super) told: Vec<(Json, Vec<Bytes>)>,
    /// How many cells had run then.
    pub(super) told_at: Vec<usize>,
    /// Whether it echoes that.
    echoes: bool,
}

impl Kernel {
    fn new(launch: LaunchId, echoes: bool) -> Self {
        Self {
            launch,
            count: 0,
            accepted: false,
            unacknowledged: BTreeMap::new(),
            said: 0,
            requests: BTreeSet::new(),
            backlog: VecDeque::new(),
            looping: None,
            ran: Vec::new(),
            widgets: BTreeMap::new(),
            opened: BTreeSet::new(),
            told: Vec::new(),
            told_at: Vec::new(),
            echoes,
        }
    }
}

/// What is there of a daemon that died.
#[derive(Default)]
struct Former {
    kernel: Option<Kernel>,
    /// The last message that its journal knows of.
    after: Sequence,
    forgetful: bool,
}

impl World {
    /// A new untitled notebook, and the id of its cell.
    pub(super) fn create(seed: u64) -> Self {
        Self::open(seed, None, seeded())
    }

    pub(super) fn open(seed: u64, path: Option<&str>, content: Content) -> Self {
        Self::begin(0, seed, Self::opening(0, seed, path, content), None)
    }

    /// A notebook that nothing is kept of.
    pub(super) fn ephemeral(seed: u64, content: Content) -> Self {
        Self::begin(0, seed, Opening { ephemeral: true, ..Self::opening(0, seed, None, content) }, None)
    }

    fn opening(life: u64, seed: u64, path: Option<&str>, content: Content) -> Opening {
        Opening {
            id: Uuid::from_u128(u128::from(seed)),
            path: path.map(PathBuf::from),
            working_dir: None,
            environment_mode: None,
            ephemeral: false,
            content,
            home: "/home/ana".into(),
            default_runtime: "python".to_owned(),
            incarnation: format!("{life:08x}"),
            at: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    /// The kernel says again what it said after `after` and nobody acknowledged. If the last life was `forgetful`, it may
    /// be busy with something that the room has never heard of.
    fn begin(life: u64, seed: u64, opening: Opening, former: Option<Former>) -> Self {
        let Former { kernel, after, forgetful } = former.unwrap_or_default();
        let from_kernel = kernel.iter().flat_map(|kernel| {
            let again = kernel.unacknowledged.range(after + 1..);
            again.map(|(at, (channel, message))| (kernel.launch, *at, *channel, message.clone()))
        });
        let from_kernel = from_kernel.collect();
        let journal = header(opening.id).to_vec();
        let (core, effects) = RoomCore::open(opening, Ids::seeded(seed ^ life << 32)).unwrap();
        let mut world = Self {
            core,
            life,
            now: Moment::default(),
            clients: BTreeMap::new(),
            to_room: BTreeMap::new(),
            to_clients: BTreeMap::new(),
            from_kernel,
            jobs: VecDeque::new(),
            kernel,
            kernels_started: 0,
            options: Json::Null,
            acquired: 0,
            acquired_for: String::new(),
            released: Vec::new(),
            closed: BTreeSet::new(),
            granted: BTreeMap::new(),
            records: Vec::new(),
            saved: Vec::new(),
            files: BTreeMap::new(),
            writing: BTreeMap::new(),
            seen: VecDeque::new(),
            blobs: Vec::new(),
            copies: Vec::new(),
            uploads: BTreeMap::new(),
            dissolved: false,
            next: VecDeque::new(),
            journal,
            no_journal: false,
            forgetful,
            slow: BTreeSet::new(),
            behind: BTreeSet::new(),
            cut: BTreeSet::new(),
            effects_left: None,
            no_environment: None,
            verdict: TrustVerdict { status: "no_dependencies".to_owned(), ..TrustVerdict::default() },
            no_verdict: None,
            asked: Vec::new(),
            watched: Vec::new(),
            no_kernel: None,
            installed: Vec::new(),
            no_kernels: None,
            no_saves: VecDeque::new(),
            hold_jobs: false,
            ids: Ids::seeded(seed ^ u64::MAX ^ life << 32),
            random: seed.wrapping_mul(2).wrapping_add(1),
        };
        world.perform(effects);
        world
    }

    /// The daemon dies, its kernel too, and another brings the room back from its journal. Clients are gone.
    pub(super) fn reopen(self) -> Self {
        self.revived(false)
    }

    /// The same, but the kernel is still there. It ends if the journal does not know it.
    pub(super) fn outlived(self) -> Self {
        self.revived(true)
    }

    fn revived(self, outlives: bool) -> Self {
        let sound = self.core.durable.is_sound();
        let Self { journal, random, life, kernel, forgetful, files, .. } = self;
        let life = life + 1;
        let folded = Folded::read(&journal).unwrap();
        let actors = Actors::of(&format!("{life:08x}"));
        let (mut documents, whole) = reopen::documents(&folded, &actors).unwrap();
        assert!(whole && folded.stop == Stop::End);
        let knows = |kernel: &Kernel| folded.kernel.as_ref().is_some_and(|it| it.kernel == kernel.launch.0);
        let kernel = kernel.filter(|kernel| outlives && kernel.accepted && knows(kernel));
        let after = folded.heard.sequence;
        let held = Some(documents.heads());
        let path = folded.meta.path.clone();
        let there = path.as_ref().and_then(|path| files.get(path)).cloned();
        let is_known = |file: &FileVersion| folded.file.digest == Some(hex::encode(file.digest));
        let is_written = |file: &FileVersion| folded.file.is_written(file.digest);
        let own = there.as_ref().is_none_or(|file| is_known(file) || is_written(file));
        assert!(own || !sound, "a daemon takes its own work for another program's");
        let left = Left {
            written: there.filter(is_written),
            known: crate::reopen::known(&folded, folded.room, None),
            attached: kernel.is_some().then_some(KEEP_ALIVE),
            kernel: folded.kernel,
            heard: folded.heard,
            outside: None,
            meta: folded.meta,
            file: folded.file,
            held,
            notice: None,
        };
        let content = Content::Kept(Box::new(Recovered { documents, left }));
        let seed = folded.room.as_u128() as u64;
        let path = path.as_deref().and_then(Path::to_str);
        let former = Former { kernel, after, forgetful };
        let mut world = Self::begin(life, seed, Self::opening(life, seed, path, content), Some(former));
        let since = world.journal.split_off(HEADER);
        world.journal = [journal, since].concat();
        world.random = random;
        if own {
            world.files = files;
        }
        world
    }

    /// What was written to a path last.
    pub(super) fn file(&self, path: &str) -> &FileVersion {
        &self.files[Path::new(path)]
    }

    /// Whether the kernel is there that the journal names.
    pub(super) fn knows_kernel(&self) -> bool {
        let named = Folded::read(&self.journal).unwrap().kernel.map(|kernel| kernel.kernel);
        named.is_some() && named == self.kernel.as_ref().map(|kernel| kernel.launch.0)
    }

    /// The heads of every document, as the journal has them.
    pub(super) fn journaled(&self) -> [Vec<ChangeHash>; 4] {
        let folded = Folded::read(&self.journal).unwrap();
        reopen::documents(&folded, &Actors::of("reader")).unwrap().0.heads()
    }

    /// A client joins.
    pub(super) fn join(&mut self, name: &str) -> PeerId {
        self.join_as(name, Scope::Owner)
    }

    pub(super) fn join_as(&mut self, name: &str, scope: Scope) -> PeerId {
        let peer = PeerId(self.ids.uuid());
        // No two connections share an actor.
        let operator = format!("{name}:{:.8}", peer.0.simple());
        let identity = Identity { principal: "local:ana".to_owned(), operator, scope };
        self.clients.insert(peer, Client::new(&identity.label()));
        self.event(Event::Joined { peer, identity });
        peer
    }

    /// A client that was here connects once more, with all it has.
    pub(super) fn rejoin(&mut self, mut client: Client) -> PeerId {
        let peer = PeerId(self.ids.uuid());
        client.reconnect();
        let operator = format!("again:{:.8}", peer.0.simple());
        let identity = Identity { principal: "local:ana".to_owned(), operator, scope: Scope::Owner };
        self.clients.insert(peer, client);
        self.event(Event::Joined { peer, identity });
        peer
    }

    pub(super) fn leave(&mut self, peer: PeerId) {
        self.clients.remove(&peer);
        self.to_room.remove(&peer);
        self.to_clients.remove(&peer);
        self.event(Event::Left { peer, keep_alive: KEEP_ALIVE });
    }

    pub(super) fn client(&mut self, peer: PeerId) -> &mut Client {
        self.clients.get_mut(&peer).unwrap()
    }

    /// Puts a frame on its way to the room.
    pub(super) fn send(&mut self, peer: PeerId, frame: impl Into<Option<(u8, Bytes)>>) {
        self.to_room.entry(peer).or_default().extend(frame.into());
    }

    /// Puts a request on its way; its answer will have the id returned.
    pub(super) fn request(&mut self, peer: PeerId, request: Json) -> String {
        let (id, frame) = self.client(peer).request(request);
        self.send(peer, Some(frame));
        id
    }

    /// Asks and lets everything happen until the answer is there.
    pub(super) fn ask(&mut self, peer: PeerId, request: Json) -> NotebookResponse {
        let id = self.request(peer, request);
        self.settle();
        self.answer(peer, &id)
    }

    pub(super) fn answer(&mut self, peer: PeerId, id: &str) -> NotebookResponse {
        self.client(peer).answers.get(id).unwrap_or_else(|| panic!("{id} has no answer")).clone()
    }

    /// Writes `source` into a new cell and runs it; returns the execution.
    pub(super) fn run(&mut self, peer: PeerId, source: &str) -> String {
        let cell = format!("cell-{}", self.ids.uuid());
        let frame = self.client(peer).add_cell(&cell, source);
        self.send(peer, frame);
        self.run_cell(peer, &cell)
    }

    /// Runs a cell that is there, as a client does; returns the execution's id.
    pub(super) fn run_cell(&mut self, peer: PeerId, cell: &str) -> String {
        let heads = self.client(peer).heads();
        let request = json!({"action": "execute_cell", "cell_id": cell, "required_heads": heads});
        match self.ask(peer, request) {
            NotebookResponse::CellQueued(queued) => queued.execution_id,
            other => panic!("not queued: {other:?}"),
        }
    }

    /// Lets everything happen that is on its way, without time passing beyond what outputs need.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.step() {
                // Outputs are coalesced, and a kernel is announced, within this time.
                let soon = self.now + Duration::from_millis(60);
                match self.core.deadline() {
                    Some(at) if at <= soon => {
                        self.now = at.max(self.now);
                        self.event(Event::Tick);
                    }
                    _ => return,
                }
            }
        }
        panic!("the room never comes to rest");
    }

    /// Lets time pass, with every deadline on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while let Some(at) = self.core.deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.event(Event::Tick);
            self.settle();
        }
        self.now = end.max(self.now);
    }

    /// Lets one thing happen. False if nothing is on its way.
    pub(super) fn step(&mut self) -> bool {
        let mut ways: Vec<Way> = Vec::new();
        let passes =
            |(peer, frames): &(&PeerId, &VecDeque<_>)| !frames.is_empty() && !self.cut.contains(*peer);
        ways.extend(self.to_room.iter().filter(passes).map(|(peer, _)| Way::In(*peer)));
        let out = self.to_clients.iter().filter(passes);
        ways.extend(out.filter_map(|(peer, frames)| {
            let next = frames.iter().position(|(frame_type, _)| self.takes(*peer, *frame_type))?;
            Some(Way::Out(*peer, next))
        }));
        if !self.from_kernel.is_empty() {
            ways.push(Way::Kernel);
        }
        if !self.jobs.is_empty() && !self.hold_jobs {
            ways.push(Way::Job);
        }
        if ways.is_empty() {
            return false;
        }
        let way = ways[self.random(ways.len())];
        match way {
            Way::In(peer) => {
                let (frame_type, payload) = self.to_room.get_mut(&peer).unwrap().pop_front().unwrap();
                self.event(Event::Frame { peer, frame_type, payload });
            }
            Way::Out(peer, next) => {
                let (frame_type, payload) = self.to_clients.get_mut(&peer).unwrap().remove(next).unwrap();
                let reply = self.client(peer).receive(frame_type, &payload);
                self.send(peer, reply);
            }
            Way::Kernel => {
                let count = 1 + self.random(self.from_kernel.len());
                let burst: Vec<_> = self.from_kernel.drain(..count).collect();
                let launch = burst[0].0;
                let mut upto = 0;
                let mut messages = Vec::new();
                for (from, at, channel, message) in burst {
                    if from == launch {
                        upto = at;
                        messages.push((channel, message));
                    }
                }
                self.event(Event::KernelSaid { launch, upto, messages });
            }
            Way::Job => {
                let event = self.jobs.pop_front().unwrap();
                let writing = match &event {
                    Event::Writing { job, .. } => self.writing.remove(job),
                    _ => None,
                };
                self.event(event);
                if !self.is_dead() {
                    self.files.extend(writing);
                }
            }
        }
        true
    }

    pub(super) fn event(&mut self, event: Event) {
        self.next.push_back(event);
        while let Some(event) = self.next.pop_front() {
            if self.is_dead() {
                return;
            }
            let effects = self.core.handle(self.now, event);
            self.perform(effects);
        }
    }

    /// Whether a client takes frames of this type at the moment.
    fn takes(&self, peer: PeerId, frame_type: u8) -> bool {
        !self.slow.contains(&peer) && (!self.behind.contains(&peer) || FrameType::is_urgent(frame_type))
    }

    /// A client takes everything again.
    pub(super) fn catch_up(&mut self, peer: PeerId) {
        if self.slow.remove(&peer) | self.behind.remove(&peer) {
            self.event(Event::Writable { peer });
        }
    }

    /// Whether the daemon has carried out its last effect.
    pub(super) fn is_dead(&self) -> bool {
        self.effects_left == Some(0)
    }

    /// The cell that loops comes to its end by itself.
    pub(super) fn kernel_ends_its_loop(&mut self) {
        let kernel = self.kernel.as_mut().unwrap();
        let (launch, parent) = (kernel.launch, kernel.looping.take().unwrap());
        self.end(launch, &parent, true);
        self.go_on(launch);
    }

    /// The kernel's process dies.
    pub(super) fn kill_kernel(&mut self) {
        let kernel = self.kernel.take().unwrap();
        let report = ExitReport { signal: Some(9), ..ExitReport::default() };
        self.event(Event::KernelExited { launch: kernel.launch, report });
    }

    /// A number below `bound`, from the seed.
    pub(super) fn random(&mut self, bound: usize) -> usize {
        // xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % bound as u64) as usize
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let later = effects.iter().skip(1).any(|effect| matches!(effect, Effect::Journal { .. }));
        assert!(!later, "what is told is in the journal before");
        for effect in effects {
            match &mut self.effects_left {
                None => {}
                Some(0) => return,
                Some(left) => *left -= 1,
            }
            match effect {
                Effect::Journal { .. } if self.no_journal => {
                    self.forgetful = true;
                    let failed = Event::JournalFailed { reason: "disk full".to_owned(), lost: false };
                    self.next.push_front(failed);
                }
                Effect::Journal { record, heard, .. } => {
                    self.journal.extend(record.finish().unwrap());
                    // It is told when this is flushed; when that is, nothing here depends on.
                    if let Some((launch, upto)) = heard {
                        self.forget(launch, upto);
                    }
                }
                Effect::Acknowledge { launch, upto } => self.acknowledge(launch, upto),
                Effect::Send { peer, frame_type, payload } => {
                    let live = self.core.live_kernel();
                    let unsafe_kernel =
                        self.kernel.as_ref().filter(|it| live == Some(it.launch) && !it.accepted);
                    let kept = self.core.has_journal() && !self.forgetful;
                    assert!(unsafe_kernel.is_none() || !kept, "who hears of a kernel may rely on it");
                    if self.clients.contains_key(&peer) {
                        self.to_clients.entry(peer).or_default().push_back((frame_type, payload));
                    }
                    if !self.takes(peer, frame_type) {
                        self.next.push_back(Event::Congested { peer, frame_type });
                    }
                }
                Effect::Grant { peer, bytes } => *self.granted.entry(peer).or_default() += bytes,
                Effect::Close { peer } => drop(self.closed.insert(peer)),
                Effect::Load { .. } => {}
                Effect::FindKernels { launch } => {
                    let installed = self.no_kernels.take().map_or_else(|| Ok(self.installed.clone()), Err);
                    self.jobs.push_back(Event::KernelsFound { launch, installed });
                }
                Effect::Acquire { launch, need, instead_of } => {
                    self.released.extend(instead_of.map(|_| Release::Delete));
                    self.acquired += 1;
                    self.acquired_for = need.source;
                    let result =
                        self.no_environment.take().map_or_else(|| Ok(Box::new(lease(self.acquired))), Err);
                    self.jobs.push_back(Event::Environment { launch, result });
                }
                Effect::Release { how, .. } => self.released.push(how),
                Effect::Launch { launch, .. } if self.no_kernel.is_some() => {
                    let result = Err(self.no_kernel.take().unwrap());
                    self.jobs.push_back(Event::KernelStarted { launch, result });
                }
                Effect::Launch { launch, spec } => {
                    self.kernels_started += 1;
                    self.options = spec.options.into();
                    self.kernel = Some(Kernel::new(launch, launch.0.as_u128() % 2 == 0));
                    self.jobs.push_back(Event::KernelStarted { launch, result: Ok(()) });
                }
                Effect::CancelLaunch { .. } => {}
                Effect::Say { launch, request } => self.hear(launch, &request),
                Effect::Interrupt { .. } => {
                    if let Some(kernel) = &mut self.kernel
                        && let Some(parent) = kernel.looping.take()
                    {
                        let launch = kernel.launch;
                        let error = json!({"ename": "KeyboardInterrupt", "evalue": "", "traceback": []});
                        self.say(launch, Channel::Iopub, &parent, "error", &error);
                        self.end(launch, &parent, false);
                        self.go_on(launch);
                    }
                }
                Effect::Stop { launch } => {
                    self.kernel.take_if(|kernel| kernel.launch == launch);
                    self.jobs.push_back(Event::KernelStopped { launch });
                }
                Effect::StoreBlobs { job, blobs } => {
                    self.blobs.extend(blobs);
                    self.jobs.push_back(Event::BlobsStored { job });
                }
                Effect::ReadBlobs { job, digests } => {
                    let named = self.blobs.iter().filter(|blob| digests.contains(&blob.digest));
                    let blobs = named.map(|blob| (blob.digest, blob.bytes.clone())).collect();
                    self.jobs.push_back(Event::BlobsRead { job, blobs });
                }
                Effect::PutBlob { job, bytes, .. } => {
                    let digest = crate::outputs::mime::digest(&bytes);
                    self.jobs.push_back(Event::BlobPut { job, result: Ok(digest) });
                }
                Effect::BeginUpload { job, upload, .. } => {
                    self.uploads.insert(upload, Vec::new());
                    let at = "2026-01-01T01:00:00Z".to_owned();
                    self.jobs.push_back(Event::UploadBegun { job, result: Ok(at) });
                }
                Effect::StagePart { job, upload, at, bytes } => {
                    let digest = crate::outputs::mime::digest(&bytes);
                    if let (Some(file), Some(at)) = (self.uploads.get_mut(&upload), at) {
                        file.truncate(at as usize);
                        file.extend(&bytes);
                    }
                    self.jobs.push_back(Event::PartStaged { job, result: Ok(digest) });
                }
                Effect::StoreUpload { job, upload, pieces, media_type } => {
                    let file = &self.uploads[&upload];
                    let piece = |(at, size): &(u64, u64)| &file[*at as usize..(at + size) as usize];
                    let bytes: Vec<u8> = pieces.iter().flat_map(piece).copied().collect();
                    let digest = crate::outputs::mime::digest(&bytes);
                    self.blobs.push(NewBlob { bytes: bytes.into(), media_type, digest });
                    self.jobs.push_back(Event::BlobPut { job, result: Ok(digest) });
                }
                Effect::EndUpload { upload } => {
                    self.uploads.remove(&upload).unwrap();
                }
                Effect::Clone { job, source } => {
                    let id = self.ids.uuid();
                    let copied = self.core.copied();
                    let result = copied.map(|copied| {
                        let working_dir = copied.working_dir.clone();
                        self.copies.push((source, copied));
                        NewCopy { id, working_dir }
                    });
                    self.jobs.push_back(Event::Cloned { job, result });
                }
                Effect::Trust { job, need, approve } => {
                    let verdict = self.verdict.clone();
                    self.asked.push((need, approve));
                    let result = self.no_verdict.take().map_or(Ok(verdict), Err);
                    self.jobs.push_back(Event::Trust { job, result });
                }
                Effect::WatchProject { files } => self.watched = files,
                Effect::Install { job, .. } => self.jobs.push_back(Event::Installed { job, result: Ok(()) }),
                Effect::Save { job, plan } => self.save(job, *plan),
                Effect::Look { job, .. } => {
                    let seen = self.seen.pop_front().unwrap_or(Seen::Known);
                    self.jobs.push_back(Event::Looked { job, seen });
                }
                Effect::Record(record) => self.records.push(*record),
                Effect::Forget => {}
                Effect::Dissolve => self.dissolved = true,
            }
        }
    }

    fn save(&mut self, job: JobId, plan: SavePlan) {
        let is_same = |last: &SavePlan| (&last.path, &last.notebook) == (&plan.path, &plan.notebook);
        let unchanged = self.saved.last().is_some_and(is_same);
        let mut digest = [1; 32];
        digest[..16].copy_from_slice(&(u128::from(self.life) << 64 | self.saved.len() as u128).to_be_bytes());
        let file =
            FileVersion { digest, notebook: plan.notebook.clone(), unnamed: BTreeSet::new(), template: None };
        let result = match self.no_saves.pop_front() {
            Some(failure) => Err(failure),
            None => {
                self.writing.insert(job, (plan.path.clone(), file.clone()));
                self.jobs.push_back(Event::Writing { job, digest });
                let at = "2026-01-01T00:00:00Z".to_owned();
                Ok(Written { path: plan.path.clone(), file, unchanged, at })
            }
        };
        self.saved.push(plan);
        self.jobs.push_back(Event::Saved { job, result });
    }

    /// The kernel is free for what it was asked meanwhile.
    fn go_on(&mut self, launch: LaunchId) {
        while let Some(kernel) = self.kernel.as_mut().filter(|kernel| kernel.looping.is_none())
            && let Some(request) = kernel.backlog.pop_front()
        {
            kernel.requests.remove(&request.msg_id);
            self.hear(launch, &request);
        }
    }

    fn acknowledge(&mut self, launch: LaunchId, upto: Sequence) {
        if let Some(kernel) = self.kernel.as_mut().filter(|kernel| kernel.launch == launch) {
            kernel.accepted = true;
        }
        self.forget(launch, upto);
    }

    /// What the kernel said up to here is in the journal.
    fn forget(&mut self, launch: LaunchId, upto: Sequence) {
        if let Some(kernel) = self.kernel.as_mut().filter(|kernel| kernel.launch == launch) {
            kernel.unacknowledged.retain(|at, _| *at > upto);
        }
    }

    fn hear(&mut self, launch: LaunchId, request: &KernelRequest) {
        let Some(kernel) = self.kernel.as_mut().filter(|kernel| kernel.launch == launch) else { return };
        kernel.accepted = true;
        if !kernel.requests.insert(request.msg_id.clone()) {
            return;
        }
        if request.msg_type == "complete_request" {
            let reply = json!({"matches": ["bit_count"], "cursor_start": 2, "cursor_end": 5});
            self.say(launch, Channel::Shell, &request.msg_id, "complete_reply", &reply);
            return;
        }
        let parent = request.msg_id.clone();
        if request.msg_type == "comm_msg" {
            if kernel.looping.is_some() {
                return kernel.backlog.push_back(request.clone());
            }
            return self.take_comm(launch, request);
        }
        let code = request.content["code"].as_str().unwrap().to_owned();
        if kernel.looping.is_some() {
            assert!(self.forgetful, "a request was sent to a busy kernel");
            kernel.backlog.push_back(request.clone());
            return;
        }
        kernel.ran.push(code.clone());
        kernel.count += 1;
        let count = kernel.count;
        self.say(launch, Channel::Iopub, &parent, "status", &json!({"execution_state": "busy"}));
        self.say(launch, Channel::Iopub, &parent, "execute_input", &json!({"execution_count": count}));
        let mut ok = true;
        for line in code.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "print" => {
                    let text = json!({"name": "stdout", "text": format!("{rest}\n")});
                    self.say(launch, Channel::Iopub, &parent, "stream", &text);
                }
                "value" => {
                    let value =
                        json!({"data": {"text/plain": rest}, "metadata": {}, "execution_count": count});
                    self.say(launch, Channel::Iopub, &parent, "execute_result", &value);
                }
                "picture" => {
                    let picture = json!({"data": {"image/png": "iVBORw0KGgo="}, "metadata": {}});
                    self.say(launch, Channel::Iopub, &parent, "display_data", &picture);
                }
                "display" | "update" => {
                    let (id, text) = rest.split_once(' ').unwrap();
                    let display = json!({
                        "data": {"text/plain": text}, "metadata": {}, "transient": {"display_id": id},
                    });
                    let msg_type = if word == "display" { "display_data" } else { "update_display_data" };
                    self.say(launch, Channel::Iopub, &parent, msg_type, &display);
                }
                "widget" | "move" | "frame" | "close" | "call" => {
                    self.widget(launch, &parent, word, rest.parse().unwrap());
                }
                "fail" => {
                    let error = json!({"ename": "ValueError", "evalue": rest, "traceback": ["oh"]});
                    self.say(launch, Channel::Iopub, &parent, "error", &error);
                    ok = false;
                    break;
                }
                "loop" => {
                    self.kernel.as_mut().unwrap().looping = Some(parent);
                    return;
                }
                _ => {}
            }
        }
        self.end(launch, &parent, ok);
        for text in code.lines().filter_map(|line| line.strip_prefix("late ")) {
            let text = json!({"name": "stdout", "text": format!("{text}\n")});
            self.say(launch, Channel::Iopub, &parent, "stream", &text);
        }
    }

    /// A cell does something to a widget.
    pub(super) fn widget(&mut self, launch: LaunchId, parent: &str, word: &str, number: u64) {
        let Kernel { widgets, opened, .. } = self.kernel.as_mut().unwrap();
        let comm = match word {
            "widget" if opened.insert(number) => Some(format!("w{number}")),
            "widget" => None,
            _ => widgets.keys().nth(number as usize % widgets.len().max(1)).cloned(),
        };
        let Some(comm) = comm else { return };
        let bytes = Bytes::from(number.to_string());
        let (msg_type, data, buffers) = match word {
            "widget" => {
                widgets.insert(comm.clone(), json!(0));
                let state = json!({"_model_name": "SliderModel", "value": 0, "max": 10});
                ("comm_open", json!({"state": state, "buffer_paths": []}), vec![])
            }
            "move" => {
                widgets.insert(comm.clone(), json!(number));
                (
                    "comm_msg",
                    json!({"method": "update", "state": {"value": number}, "buffer_paths": []}),
                    vec![],
                )
            }
            "frame" => {
                let update = json!({"method": "update", "state": {}, "buffer_paths": [["frame"]]});
                ("comm_msg", update, vec![bytes])
            }
            "call" => ("comm_msg", json!({"method": "custom", "content": number}), vec![bytes]),
            _ => {
                widgets.remove(&comm);
                ("comm_close", json!({}), vec![])
            }
        };
        let target = if msg_type == "comm_open" { "jupyter.widget" } else { "" };
        let content = json!({"comm_id": comm, "target_name": target, "data": data});
        self.say_with(launch, Channel::Iopub, parent, msg_type, &content, buffers);
    }

    /// A widget hears from a client.
    fn take_comm(&mut self, launch: LaunchId, request: &KernelRequest) {
        let parent = &request.msg_id;
        self.say(launch, Channel::Iopub, parent, "status", &json!({"execution_state": "busy"}));
        let kernel = self.kernel.as_mut().unwrap();
        kernel.told_at.push(kernel.ran.len());
        kernel.told.push((request.content.clone(), request.buffers.clone()));
        let comm = request.content["comm_id"].as_str().unwrap().to_owned();
        let state = &request.content["data"]["state"];
        let there = kernel.widgets.contains_key(&comm);
        if there && let Some(value) = state.get("value") {
            kernel.widgets.insert(comm.clone(), value.clone());
        }
        if there && kernel.echoes && state.is_object() {
            let echo = json!({"comm_id": comm, "data": {"method": "echo_update", "state": state}});
            self.say(launch, Channel::Iopub, parent, "comm_msg", &echo);
        }
        self.say(launch, Channel::Iopub, parent, "status", &json!({"execution_state": "idle"}));
    }

    fn end(&mut self, launch: LaunchId, parent: &str, ok: bool) {
        let reply = json!({"status": if ok { "ok" } else { "error" }});
        let reply_first = self.random(2) == 0;
        if reply_first {
            self.say(launch, Channel::Shell, parent, "execute_reply", &reply);
        }
        self.say(launch, Channel::Iopub, parent, "status", &json!({"execution_state": "idle"}));
        if !reply_first {
            self.say(launch, Channel::Shell, parent, "execute_reply", &reply);
        }
    }

    /// The kernel says something in answer to `parent`.
    pub(super) fn say(
        &mut self,
        launch: LaunchId,
        channel: Channel,
        parent: &str,
        msg_type: &str,
        content: &Json,
    ) {
        self.say_with(launch, channel, parent, msg_type, content, Vec::new());
    }

    fn say_with(
        &mut self,
        launch: LaunchId,
        channel: Channel,
        parent: &str,
        msg_type: &str,
        content: &Json,
        buffers: Vec<Bytes>,
    ) {
        let message = JupyterMessage {
            header: json!({"msg_id": "k", "msg_type": msg_type}).to_string().into(),
            parent_header: json!({"msg_id": parent, "msg_type": "execute_request"}).to_string().into(),
            metadata: Bytes::from_static(b"{}"),
            content: content.to_string().into(),
            buffers,
        };
        let Some(kernel) = self.kernel.as_mut().filter(|kernel| kernel.launch == launch) else { return };
        kernel.said += 1;
        kernel.unacknowledged.insert(kernel.said, (channel, message.clone()));
        self.from_kernel.push_back((launch, kernel.said, channel, message));
    }

    pub(super) fn launch(&self) -> LaunchId {
        self.kernel.as_ref().unwrap().launch
    }
}

#[derive(Clone, Copy)]
enum Way {
    In(PeerId),
    Out(PeerId, usize),
    Kernel,
    Job,
}

pub(super) fn seeded() -> Content {
    Content::Seed {
        kernel: choice::built_in("python").unwrap(),
        package_manager: "uv".to_owned(),
        dependencies: Vec::new(),
    }
}

fn lease(number: u32) -> Lease {
    serde_json::from_value(json!({
        "id": number.to_string(),
        "source": "uv:prewarmed",
        "environment": {"kind": "uv", "prefix": "/envs/a", "python": "/envs/a/bin/python"},
        "launch": {"argv": ["/envs/a/bin/python"]},
        "launched_config": {"venv_path": "/envs/a"},
    }))
    .unwrap()
}
