//! A home with runt and runtimed installed, and a plugin to add.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::{env, fs};

use serde_json::Value;

/// A user with an installation of their own.
pub(crate) struct World {
    home: tempfile::TempDir,
}

/// A running daemon. Ended when dropped.
pub(crate) struct Daemon {
    child: Child,
    /// Reads its stderr to the end, so that it never waits for us.
    draining: Option<JoinHandle<()>>,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let home = tempfile::Builder::new().prefix("rt").tempdir().unwrap();
        let bin = home.path().join("dist/bin");
        fs::create_dir_all(&bin).unwrap();
        let runt = PathBuf::from(env!("CARGO_BIN_EXE_runt"));
        // Staged by `cargo xtask test`, or built beside runt.
        let staged = env::var_os("RUNTIMED_TEST_DIST").map(|dist| PathBuf::from(dist).join("bin/runtimed"));
        let runtimed = staged.unwrap_or_else(|| runt.with_file_name("runtimed"));
        assert!(runtimed.is_file(), "build runtimed first: cargo build -p runtimed");
        for binary in [&runt, &runtimed] {
            let to = bin.join(binary.file_name().unwrap());
            if fs::hard_link(binary, &to).is_err() {
                fs::copy(binary, &to).unwrap();
            }
        }
        Self { home }
    }

    /// The home folder.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The user's plugin folder.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.home().join(if cfg!(target_os = "macos") {
            "Library/Application Support/runt/plugins"
        } else {
            ".local/share/runt/plugins"
        })
    }

    /// Where runt and runtimed are.
    pub(crate) fn bin(&self, name: &str) -> PathBuf {
        self.home().join("dist/bin").join(name)
    }

    /// What the daemon keeps.
    pub(crate) fn base(&self) -> PathBuf {
        self.home().join(if cfg!(target_os = "macos") { "Library/Caches/runt" } else { ".cache/runt" })
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.home().join(if cfg!(target_os = "macos") {
            "Library/Application Support/nteract/settings.json"
        } else {
            ".config/nteract/settings.json"
        })
    }

    /// Puts a script in the place of the daemon's binary, which is `runtimed.real` then.
    pub(crate) fn replace_runtimed(&self, script: &str) {
        let binary = self.bin("runtimed");
        fs::rename(&binary, self.bin("runtimed.real")).unwrap();
        fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Takes the script away again.
    pub(crate) fn restore_runtimed(&self) {
        fs::rename(self.bin("runtimed.real"), self.bin("runtimed")).unwrap();
    }

    /// A command in this home.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("USER", "tester")
            .env("XDG_RUNTIME_DIR", self.home().join("run"))
            .current_dir(self.home())
            .stdin(Stdio::null());
        command
    }

    /// Runs `runt`.
    pub(crate) fn runt(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(self.bin("runt")).args(arguments).output().unwrap())
    }

    /// Runs `runt plugins`.
    pub(crate) fn plugins_command(&self, arguments: &[&str]) -> Said {
        self.runt(&[&["plugins"], arguments].concat())
    }

    /// The rows of `runt plugins list`.
    pub(crate) fn list(&self) -> Vec<Value> {
        let said = self.plugins_command(&["list", "--json"]).good();
        serde_json::from_str::<Value>(&said.out).unwrap().as_array().unwrap().clone()
    }

    /// Status and reason of a plugin that is used, or would be.
    pub(crate) fn status(&self, id: &str) -> (String, String) {
        let rows = self.list();
        let row = rows.iter().find(|row| row["id"] == id).unwrap();
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    }

    /// Starts the daemon and waits until it listens. Its pools stay empty, so nobody asks for an environment.
    pub(crate) fn start(&self) -> Daemon {
        if !self.settings().exists() {
            fs::create_dir_all(self.settings().parent().unwrap()).unwrap();
            fs::write(self.settings(), "{\"misbehaving_pool_size\": 0, \"uv_pool_size\": 0}").unwrap();
        }
        let mut child = self
            .command(self.bin("runtimed"))
            .args(["--log-level", "info", "run"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.by_ref().any(|line| line.contains("listening on ")), "the daemon did not start");
        Daemon { child, draining: Some(std::thread::spawn(move || lines.for_each(drop))) }
    }

    /// A plugin to add, in a folder below the home: `carrier` and `version` are as the manifest says them.
    pub(crate) fn plugin(&self, carrier: &str, version: &str) -> PathBuf {
        let folder = self.home().join(format!("{carrier}-{version}"));
        fs::create_dir_all(&folder).unwrap();
        let library = in_version(fs::read(library()).unwrap(), version);
        fs::write(folder.join(library_name()), library).unwrap();
        fs::write(folder.join("plugin.toml"), manifest(carrier, version)).unwrap();
        folder
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if let Some(draining) = self.draining.take() {
            draining.join().ok();
        }
    }
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self
    }

    /// What a failed command said, which must be nothing on stdout.
    #[track_caller]
    pub(crate) fn bad(self) -> String {
        assert_eq!((self.code, self.out.as_str()), (1, ""), "{}", self.err);
        self.err
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.good().out).unwrap()
    }
}

/// The manifest of a plugin to add. Its id and kind are `misbehaving`, which it does not unless told to.
pub(crate) fn manifest(carrier: &str, version: &str) -> String {
    format!(
        "manifest_version = 1\nid = \"misbehaving\"\nname = \"To add\"\nversion = \"{version}\"\n\
         license = \"BSD-3-Clause\"\n[abi]\nmajor = 1\n[library]\n{}-{} = {{ path = \"{}\" }}\n\
         [[provides]]\ncapability = \"env-provider.v1\"\nname = \"misbehaving\"\nmarkers = [\"bad.toml\"]\n\
         [run]\nactivate = \"on-demand\"\ncarrier = \"{carrier}\"\n",
        env::consts::OS,
        env::consts::ARCH,
        library_name()
    )
}

pub(crate) fn library_name() -> String {
    format!("{}runtimed_plugin_misbehaving{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX)
}

/// A library that says it has another version, which must be as long as the one it is built with.
fn in_version(mut library: Vec<u8>, version: &str) -> Vec<u8> {
    let (built, version) = (env!("CARGO_PKG_VERSION").as_bytes(), version.as_bytes());
    let places: Vec<usize> =
        (0..library.len() - built.len()).filter(|&at| library[at..].starts_with(built)).collect();
    for at in places {
        library[at..at + built.len()].copy_from_slice(version);
    }
    library
}

/// The library that cargo builds with the tests, beside the test binary.
pub(crate) fn library() -> PathBuf {
    env::current_exe().unwrap().with_file_name(library_name())
}
