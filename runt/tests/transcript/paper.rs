//! A transcript of commands that reads the same every time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use regex::{Captures, Regex};

use crate::world::{Said, World};

/// What differs from run to run, and what stands for it.
const RULES: &[(&str, &str)] = &[
    (r"127\.0\.0\.1:\d+", "[this machine]:[port]"),
    // Times and versions.
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?", "[time]"),
    (r"\d{4}-\d\d-\d\d-\d{6}", "[time]"),
    (r"\b\d+\.\d+\.\d+(?:\+[0-9a-f]+)?(?:-dirty)?\b(?:\+dirty)?", "[version]"),
    (r"\b\d+h \d+m\b", "[uptime]"),
    (r"(?m)(│ )\d+(?:m \d+)?s( *│)", "$1[uptime]$2"),
    // Numbers of processes, ports and other things of the system.
    (r"\b([Pp]rocess|pid|PID:|pid=)( *)\d+", "$1$2[pid]"),
    (r#"("(?:pid|kernel_pid|process)": )\d+"#, "${1}[pid]"),
    (r#"("(?:blob_port)": )\d+"#, "${1}[port]"),
    (
        r#"("(?:num_\w+|global_queue_depth|uptime_us|uptime_secs|cpu_percent|memory_bytes|[a-z_]*bytes)": )[\d.]+"#,
        "${1}[number]",
    ),
    (r#"("worker_\w+": )\[[^\]]*\]"#, "${1}[[numbers]]"),
    (r"\b\d+(?:\.\d+)? (?:B|kB|KiB|MB|MiB|GB|GiB|TiB)\b", "[size]"),
    (r"(│ )\d+( *│ +(?:\d+%|-) )", "$1[pid]$2"),
    (r"\b\d+%", "[cpu]"),
    (r"\bran in [\d.]+ s", "ran in [seconds] s"),
    (r#"("seconds": )[\d.]+"#, "${1}[seconds]"),
    (r"(session: )[^\n\x22]*", "${1}[what systemd says]"),
    // What is waited for, where it takes long enough to be told.
    (r"(?m)^(?:preparing the environment \.\.\.|starting the kernel \.\.\.|\[\d+/\d+\] took [\d.]+ s)\n", ""),
    // Tables are as wide as what is in them.
    (r"─{2,}", "──"),
];

/// Commands and what they said.
pub(crate) struct Paper<'a> {
    world: &'a World,
    text: String,
    rules: Vec<(Regex, &'static str)>,
    uuid: Regex,
    /// UUIDs in the order in which they came.
    ids: BTreeMap<String, usize>,
}

impl<'a> Paper<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        Self {
            world,
            text: String::new(),
            rules: RULES.iter().map(|(rule, by)| (Regex::new(rule).unwrap(), *by)).collect(),
            uuid: Regex::new(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap(),
            ids: BTreeMap::new(),
        }
    }

    /// Runs a command and writes down what it said; lines of stderr have `! ` in front.
    pub(crate) fn runt(&mut self, line: &str) -> Said {
        let command = self.world.command("runt");
        self.run(line, command)
    }

    /// The same with one variable more.
    pub(crate) fn runt_with(&mut self, line: &str, name: &str, value: &str) -> Said {
        let mut command = self.world.command("runt");
        command.env(name, value);
        self.run(&format!("{name}={value} runt {line}"), command)
    }

    fn run(&mut self, line: &str, mut command: Command) -> Said {
        let words = line.split_once("runt ").map_or(line, |(_, words)| words);
        let shown = if line.contains("runt ") { line.to_owned() } else { format!("runt {line}") };
        let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
        let said = Said::of(command.args(words).output().unwrap());
        let shown = self.steady(&shown);
        let _ = writeln!(self.text, "$ {shown}");
        let out = self.steady(&said.out);
        self.text += &out;
        if !out.is_empty() && !out.ends_with('\n') {
            self.text += "(no line end)\n";
        }
        for line in self.steady(&said.err).lines() {
            let _ = writeln!(self.text, "! {line}");
        }
        let _ = writeln!(self.text, "({})\n", said.code);
        said
    }

    fn steady(&mut self, text: &str) -> String {
        let mut text = text.replace(&*self.world.home().to_string_lossy(), "[home]");
        if let Some(dist) = std::env::var_os("RUNTIMED_TEST_DIST") {
            let dist = std::path::PathBuf::from(dist);
            let canonical = dist.canonicalize().unwrap();
            for dist in [canonical, dist] {
                text = text.replace(&*dist.to_string_lossy(), "[dist]");
            }
        }
        let ids = &mut self.ids;
        text = self
            .uuid
            .replace_all(&text, |found: &Captures<'_>| {
                let next = ids.len() + 1;
                format!("[id {}]", ids.entry(found[0].to_owned()).or_insert(next))
            })
            .into_owned();
        for (rule, by) in &self.rules {
            text = rule.replace_all(&text, *by).into_owned();
        }
        let squeezed = |line: &str| match line.starts_with('│') && line.ends_with('│') {
            true => line.split('│').map(str::trim).collect::<Vec<_>>().join(" │ ").trim().to_owned(),
            false => line.trim_end().to_owned(),
        };
        let mut steady = text.lines().map(squeezed).collect::<Vec<_>>().join("\n");
        if text.ends_with('\n') {
            steady.push('\n');
        }
        steady
    }

    /// Compares it with what is kept under this name.
    #[track_caller]
    pub(crate) fn compare(self, name: &str) {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, self.text);
        });
    }
}
