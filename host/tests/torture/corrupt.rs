//! What is kept is cut off or changed by something else while no daemon runs: it comes back, or its loss is told.
//!
//! What is intact is never touched by what is not. A little here; `cargo xtask torture corrupt` is for more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use runtimed_client::Client;
use serde_json::Value;

use crate::bystander::{Bystander, Place};
use crate::random::Random;
use crate::story::Story;
use crate::support::Daemon;
use crate::{asked, scripts, tally};

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "conda_pool_size": 0, "uv_pool_size": 1, "keep_alive_secs": 60 }"#;
/// Daemons, each with some damage: as many as take half a minute.
const RUNS: u64 = 25;
/// Most files that are damaged at a time.
const AT_ONCE: usize = 3;
/// A cell with an output that is in the document, and one that is a blob.
const CELL: &str = "from IPython.display import Image\nprint('shown')\nImage(bytes(5000), format='png')";

/// What there is of a notebook.
struct Known {
    /// None if it has no file.
    file: Option<PathBuf>,
    id: String,
    content: Value,
    execution: String,
    outputs: Vec<Value>,
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_mended_or_told_and_the_rest_is_untouched() {
    if env::var_os("RUNTIMED_TEST_DIST").is_none() {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one.");
        return;
    }
    let (seed, runs) = asked(RUNS);
    let mut daemon = scripts::start(SETTINGS, |_| {});
    let home = daemon.home.path().canonicalize().unwrap();
    let work = home.join("work");
    fs::create_dir_all(&work).unwrap();
    let mut bystander = Bystander::new(seed);
    let mut notebooks = Vec::new();
    for file in [Some(work.join("file.ipynb")), None, Some(work.join("control.ipynb"))] {
        let story = match &file {
            Some(file) => Story::open(&daemon, file).await.unwrap(),
            None => Story::create(&daemon).await.unwrap(),
        };
        story.add("a", CELL).await.unwrap();
        if file.is_some() {
            story.save().await.unwrap();
        }
        let (execution, well) = story.run("a").await.unwrap();
        assert!(well);
        for number in 0..5 {
            story.add(&format!("{number}"), &format!("unsaved = {number}")).await.unwrap();
        }
        for _ in 0..4 {
            bystander.act_somehow(&Place::of(&daemon), &story.id()).unwrap();
        }
        let (id, content, outputs) = (story.id(), story.content(), story.outputs(&execution));
        notebooks.push(Known { file, id, content, execution, outputs });
    }
    daemon.signal("KILL");
    daemon.ended();
    daemon.end_kernels();
    fs::write(daemon.base().join("plugins.lock"), r#"{"plugins": {}}"#).unwrap();
    fs::write(daemon.base().join("trusted-packages.json"), r#"{"packages": []}"#).unwrap();
    let control = notebooks.pop().unwrap();
    let whole = Snapshot::take(&home);
    let (mut random, mut files) = (Random(seed), 0);
    for run in 0..runs {
        whole.restore(&home);
        fs::remove_file(daemon.base().join("runtimed.log")).ok();
        for quarantine in ["rooms/quarantine", "blobs/quarantine"] {
            fs::remove_dir_all(daemon.base().join(quarantine)).ok();
        }
        let damaged = damage(&whole, &control, &mut random);
        let context = format!(
            "seed {seed}, run {run}: {:?}",
            damaged
                .iter()
                .map(|it| (it.path.strip_prefix(&home).unwrap(), it.how.as_str()))
                .collect::<Vec<_>>()
        );
        daemon = daemon.start_again_with(|_, command| scripts::pass_environment(command));
        println!("{context}");
        look(&daemon, &home, &notebooks, &control, &damaged, &context).await;
        daemon.signal("TERM");
        assert!(daemon.ended().success(), "{context}");
        let log = fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
        assert!(!log.contains("PANIC"), "{context}\n{log}");
        files += damaged.len();
    }
    tally(&format!("seed {seed}: {runs} daemons, {files} damaged files"));
}

/// Everything small below a home, in memory.
struct Snapshot(BTreeMap<PathBuf, Vec<u8>>);

impl Snapshot {
    fn take(home: &Path) -> Self {
        let mut files = BTreeMap::new();
        collect(home, &mut files);
        Self(files)
    }

    /// Puts everything back, and removes what came since.
    fn restore(&self, home: &Path) {
        let mut now = BTreeMap::new();
        collect(home, &mut now);
        for path in now.keys().filter(|path| !self.0.contains_key(*path)) {
            fs::remove_file(path).unwrap();
        }
        for (path, bytes) in self.0.iter().filter(|(path, bytes)| now.get(*path) != Some(bytes)) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // What was read from the file before keeps its own bytes.
            fs::remove_file(path).ok();
            fs::write(path, bytes).unwrap();
        }
    }
}

/// What is ours: not what package managers keep, nor what environments consist of.
fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let name = entry.file_name().to_string_lossy().into_owned();
        let others = [
            "lib",
            "lib64",
            "bin",
            "share",
            "include",
            "etc",
            "plugins",
            "plugin-copies",
            ".ipython",
            ".local",
            "CACHEDIR.TAG",
            "pyvenv.cfg",
            ".lock",
            ".gitignore",
            "quarantine",
        ];
        if others.contains(&&*name) || name.starts_with("runtimed.log") {
            continue;
        }
        if kind.is_dir() {
            collect(&path, files);
        } else if kind.is_file() {
            files.insert(path.clone(), fs::read(path).unwrap());
        }
    }
}

struct Damaged {
    path: PathBuf,
    how: String,
    /// What is there now.
    bytes: Vec<u8>,
}

/// Damages some files, none of which the control notebook needs.
fn damage(whole: &Snapshot, control: &Known, random: &mut Random) -> Vec<Damaged> {
    let needed = |path: &Path, bytes: &[u8]| {
        let text = format!("{} {}", path.display(), String::from_utf8_lossy(bytes));
        let name = path.to_string_lossy();
        // Its file, its journal, its record, and what all share: the image and its kind.
        text.contains("control.ipynb")
            || text.contains(&control.id)
            || name.contains(&*hash_of_image(control))
    };
    let candidates: Vec<_> = whole.0.iter().filter(|(path, bytes)| !needed(path, bytes)).collect();
    let mut chosen = BTreeMap::new();
    for _ in 0..=random.below(AT_ONCE) {
        // A kind of file first: there are many of some kinds.
        let folders: Vec<_> = candidates.iter().map(|(path, _)| kind_of(path)).collect();
        let mut kinds = folders.clone();
        kinds.sort();
        kinds.dedup();
        let kind = &kinds[random.below(kinds.len())];
        let of_kind: Vec<_> = candidates.iter().zip(&folders).filter(|(_, it)| *it == kind).collect();
        let ((path, bytes), _) = of_kind[random.below(of_kind.len())];
        let (original, mut bytes) = (bytes, (*bytes).clone());
        let place = random.below(bytes.len() + 1);
        let how = match random.below(5) {
            0 => {
                bytes.truncate(place);
                format!("cut off at {place}")
            }
            1 if !bytes.is_empty() => {
                let place = place.min(bytes.len() - 1);
                bytes[place] ^= 1 << random.below(8);
                format!("a bit flipped at {place}")
            }
            2 => {
                let end = bytes.len().min(place + 512);
                bytes[place..end].fill(0);
                format!("zeros at {place}")
            }
            3 => {
                let end = bytes.len().min(place + 16);
                let noise = random.bytes(end - place);
                bytes[place..end].copy_from_slice(&noise);
                format!("noise at {place}")
            }
            _ => {
                bytes.extend(random.bytes(20));
                "noise behind it".to_owned()
            }
        };
        if bytes != **original {
            fs::write(path, &bytes).unwrap();
            chosen.insert((*path).clone(), (how, bytes));
        }
    }
    chosen.into_iter().map(|(path, (how, bytes))| Damaged { path, how, bytes }).collect()
}

/// What a file is, by where it lies: its folder for what has a folder of its own, else its name.
fn kind_of(path: &Path) -> String {
    let folder = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
    match &*folder {
        "rooms" | "executions" => format!("{folder} {extension}"),
        _ if path.components().any(|it| it.as_os_str() == "blobs") => format!("blobs {extension}"),
        _ => path.file_name().unwrap().to_string_lossy().into_owned(),
    }
}

/// Where the image lies that all notebooks show: the name of its file.
fn hash_of_image(known: &Known) -> String {
    let hash = known.outputs.iter().find_map(|it| it.pointer("/data/image~1png/blob")?.as_str());
    hash.unwrap()[2..].to_owned()
}

async fn look(
    daemon: &Daemon,
    home: &Path,
    notebooks: &[Known],
    control: &Known,
    damaged: &[Damaged],
    context: &str,
) {
    let client = Client::new(&daemon.socket);
    client.ping().await.unwrap();
    let story = Story::open(daemon, control.file.as_ref().unwrap()).await.unwrap();
    assert_eq!(story.content(), control.content, "{context}");
    assert_eq!(story.outputs(&control.execution), control.outputs, "{context}");
    assert!(
        !client.blobs().await.unwrap().read(&hash_with_folder(control)).await.unwrap().is_empty(),
        "{context}"
    );

    // What is wrong, in every way in which it can be told.
    let mut told = String::new();
    let mut note = |what: String| {
        told.push_str(&what);
        told.push('\n');
    };
    let rows = client.verify_notebooks(false).await.unwrap().notebooks;
    rows.iter().filter(|row| !row.is_safe()).for_each(|row| note(format!("{} {:?}", row.journal, row)));
    note(client.daemon_info().await.unwrap().settings_problem.unwrap_or_default());
    let mut changed = Vec::new();
    for known in notebooks {
        let opened = match &known.file {
            Some(file) => Story::open(daemon, file).await,
            None => Story::join(daemon, &known.id).await,
        };
        let seen = opened.map(|story| {
            note(story.trouble());
            (story.content(), story.outputs(&known.execution))
        });
        match seen {
            Ok((content, outputs)) if content == known.content && outputs == known.outputs => {}
            Ok(_) => changed.push(known),
            Err(error) => {
                note(error.to_string());
                changed.push(known);
            }
        }
        // What a journal lost is known to have failed, and its record is that of a failure.
        let is_damaged = damaged.iter().any(|it| it.path.to_string_lossy().contains("/rooms/"));
        match client.get_execution_result(&known.execution).await {
            Ok(record) => {
                let outputs = record["outputs"].as_array().unwrap().len();
                assert!(is_damaged || outputs == known.outputs.len(), "{context}: {record}");
            }
            Err(error) => note(error.to_string()),
        }
    }
    for it in damaged.iter().filter(|it| kind_of(&it.path) == "blobs ") {
        let hash = hash_of_path(&it.path);
        if let Err(error) = client.blobs().await.unwrap().read(&hash).await {
            note(format!("{error} {}", it.path.display()));
        }
    }
    note(fs::read_to_string(daemon.base().join("runtimed.log")).unwrap());

    let names = |path: &Path| told.contains(&*path.file_name().unwrap().to_string_lossy());
    for known in changed {
        // Who reads a file that is a notebook still cannot know that somebody else did not mean it.
        let meant = damaged.iter().any(|it| Some(&it.path) == known.file.as_ref() && is_json(&it.bytes));
        let why = damaged.iter().find(|it| {
            let whose =
                it.path.to_string_lossy().contains(&known.id) || Some(&it.path) == known.file.as_ref();
            (whose || it.path.to_string_lossy().contains("/rooms/")) && names(&it.path)
        });
        assert!(
            meant || why.is_some(),
            "{context}: notebook {} is another, and nobody says why\n{told}",
            known.id
        );
    }
    for it in damaged {
        let kind = kind_of(&it.path);
        if kind == "settings.json" && !is_json(&it.bytes) {
            assert!(names(&it.path), "{context}: nobody hears of the settings\n{told}");
            assert_eq!(fs::read(&it.path).unwrap(), it.bytes, "{context}: they are left alone");
        }
        if kind == "blobs " {
            assert!(
                names(&it.path) || told.contains(&hash_of_path(&it.path)),
                "{context}: nobody hears of the blob\n{told}"
            );
        }
        let ours = it.path.starts_with(home.join("work")) || kind.starts_with("rooms");
        if ours && fs::read(&it.path).is_ok_and(|now| now != it.bytes) {
            // It was replaced: by all that was known, or what was there lies in the quarantine.
            let is_aside = fs::read_dir(daemon.base().join("rooms/quarantine"))
                .is_ok_and(|mut all| all.any(|entry| fs::read(entry.unwrap().path()).unwrap() == it.bytes));
            let is_known =
                names(&it.path) || notebooks.iter().any(|known| Some(&it.path) == known.file.as_ref());
            assert!(is_aside || is_known, "{context}: {} was replaced silently\n{told}", it.path.display());
        }
    }
}

fn hash_with_folder(known: &Known) -> String {
    known.outputs.iter().find_map(|it| it.pointer("/data/image~1png/blob")?.as_str()).unwrap().to_owned()
}

fn hash_of_path(path: &Path) -> String {
    let folder = path.parent().unwrap().file_name().unwrap().to_string_lossy();
    format!("{folder}{}", path.file_stem().unwrap().to_string_lossy())
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok_and(|it| it.is_object())
}
