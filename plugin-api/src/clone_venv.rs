//! Copies of virtual environments, for [`EnvProvider::clone_env`](crate::EnvProvider::clone_env).
//!
//! For: providers whose environments are venvs (feature `clone-venv`).
//! Promises: what people and tools change in place is the copy's own, the rest shares its blocks with the template; whatever
//! names the template's prefix names the copy's; times are kept, so that shared byte code stays valid. An error or a
//! dropped future leaves a part of the copy at most, which is the host's to delete.
//! Never: writes into the template.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, File, FileTimes};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use crate::{Environment, ErrorCode, PluginError, Result};

/// Niceness of copying while nobody waits: a notebook that is being opened needs both cores of a small machine.
#[cfg(target_os = "linux")]
const BACKGROUND_NICENESS: i32 = 10;
/// Longer scripts and lists than this are programs (the largest `RECORD` seen has 1 MB).
const LARGEST_TEXT: u64 = 8 << 20;
/// Longest first line of a script that every kernel reads (Linux before 5.1 cuts it there).
const LONGEST_SHEBANG: usize = 127;
/// What installers write beside a package and rewrite in place later.
const RECORDS: [&str; 4] = ["RECORD", "INSTALLER", "REQUESTED", "direct_url.json"];

/// Makes the venv of `template` again at `prefix`, which must not exist, on a thread of its own: nicely if
/// [`Environment::in_background`] says so.
///
/// Blocks are shared by reflink where the file system can, else by hard links. Own copies are: everything directly in the
/// prefix and in a `site-packages` folder, `etc` and `share`, the scripts in `bin`, `.pth` files and the records of
/// installers.
///
/// # Errors
/// `Unsupported` for what is not a venv or cannot be one at `prefix`, `Conflict` if something is there, `Internal` for
/// errors of the file system.
pub async fn clone_venv(template: &Environment, prefix: &Path) -> Result<Environment> {
    let from = &template.prefix;
    let python = template.python.strip_prefix(from).map_err(|_| {
        PluginError::unsupported(format!(
            "`{}` is not an interpreter of the environment `{}`",
            template.python.display(),
            from.display()
        ))
    })?;
    if from.starts_with(prefix) || prefix.starts_with(from) {
        return Err(PluginError::invalid("an environment cannot be cloned into itself"));
    }
    let given_up = GivenUp::default();
    let (tell, told) = oneshot::channel();
    let mut copy = Copy::new(from, prefix, given_up.0.clone());
    let nicely = template.in_background();
    let thread = std::thread::Builder::new().name("clone".to_owned());
    let started = thread.spawn(move || {
        if nicely {
            be_nice();
        }
        // Fails if nobody waits any more.
        let _ = tell.send(copy.run());
    });
    started.map_err(|error| PluginError::internal(format!("could not start a thread: {error}")))?;
    told.await.map_err(|_| PluginError::internal("copying an environment panicked"))??;
    let mut env = Environment { prefix: prefix.to_owned(), python: prefix.join(python), ..template.clone() };
    env.set_in_background(false);
    Ok(env)
}

/// Lowers the priority of this thread alone. Elsewhere than on Linux that would be the process's.
fn be_nice() {
    #[cfg(target_os = "linux")]
    {
        // Being less nice than asked for hurts nobody.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), BACKGROUND_NICENESS);
    }
}

/// Tells the thread to stop when the future is dropped.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One copy under way.
struct Copy {
    from: PathBuf,
    to: PathBuf,
    /// The template's prefix as files may name it.
    names: Vec<PathBuf>,
    given_up: Arc<AtomicBool>,
    /// Whether this file system may be able to share blocks.
    reflinks: bool,
}

impl Copy {
    fn new(from: &Path, to: &Path, given_up: Arc<AtomicBool>) -> Self {
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            names: vec![from.to_owned()],
            given_up,
            reflinks: true,
        }
    }

    fn run(&mut self) -> Result<()> {
        if !self.from.join("pyvenv.cfg").is_file() {
            let place = self.from.display();
            return Err(PluginError::unsupported(format!("`{place}` is not a virtual environment")));
        }
        // Tools may have asked the system where they are.
        self.names.extend(fs::canonicalize(&self.from).ok().filter(|real| *real != self.from));
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let (from, to) = (self.from.join(&folder), self.to.join(&folder));
            fs::create_dir(&to).map_err(|error| failed(&to, &error))?;
            for entry in fs::read_dir(&from).map_err(|error| failed(&from, &error))? {
                if self.given_up.load(Ordering::Relaxed) {
                    return Err(PluginError::new(ErrorCode::Cancelled, "given up"));
                }
                let entry = entry.map_err(|error| failed(&from, &error))?;
                let below = folder.join(entry.file_name());
                match self.entry(&entry, &below) {
                    Ok(false) => {}
                    Ok(true) => folders.push(below),
                    // Byte code that is being written has a name for a moment only.
                    Err(error) if error.kind() == ErrorKind::NotFound && folder.ends_with("__pycache__") => {}
                    Err(error) if error.kind() == ErrorKind::Unsupported => {
                        return Err(PluginError::unsupported(error.to_string()));
                    }
                    Err(error) => return Err(failed(&entry.path(), &error)),
                }
            }
        }
        Ok(())
    }

    /// Copies what is neither a folder nor something odd. Whether it is a folder.
    fn entry(&mut self, entry: &DirEntry, below: &Path) -> io::Result<bool> {
        let (kind, from, to) = (entry.file_type()?, entry.path(), self.to.join(below));
        if kind.is_symlink() {
            let target = fs::read_link(&from)?;
            std::os::unix::fs::symlink(self.moved(target), to)?;
        } else if kind.is_file() && is_own(below) {
            self.own(&from, &to, below.starts_with("bin"))?;
        } else if kind.is_file() {
            self.share(&from, &to)?;
        }
        Ok(kind.is_dir())
    }

    /// Where a link into the template leads in the copy.
    fn moved(&self, target: PathBuf) -> PathBuf {
        let inside = self.names.iter().find_map(|name| target.strip_prefix(name).ok());
        inside.map_or(target.clone(), |inside| self.to.join(inside))
    }

    /// Gives the copy a file of its own, with the prefix of the copy where that of the template stood.
    fn own(&mut self, from: &Path, to: &Path, script: bool) -> io::Result<()> {
        let about = fs::metadata(from)?;
        if about.len() > LARGEST_TEXT {
            return self.share(from, to);
        }
        let text = fs::read(from)?;
        if script && text.contains(&0) {
            // A program.
            return self.share(from, to);
        }
        let text = if text.contains(&0) { text } else { self.renamed(text) };
        let shebang = text.split(|byte| *byte == b'\n').next().filter(|line| line.starts_with(b"#!"));
        if script && shebang.is_some_and(|line| line.len() > LONGEST_SHEBANG) {
            let text = format!("the prefix is too long for the first line of `{}`", to.display());
            return Err(io::Error::new(ErrorKind::Unsupported, text));
        }
        fs::write(to, text)?;
        fs::set_permissions(to, about.permissions())?;
        keep_time(to, &about)
    }

    /// The text with each prefix of the template replaced.
    fn renamed(&self, text: Vec<u8>) -> Vec<u8> {
        let new = self.to.as_os_str().as_bytes();
        self.names.iter().fold(text, |text, name| replaced(text, name.as_os_str().as_bytes(), new))
    }

    /// Gives the copy the template's blocks; a copy of them where neither file system nor user can share.
    fn share(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if self.reflinks {
            match reflink_copy::reflink(from, to) {
                Ok(()) => return keep_time(to, &fs::metadata(from)?),
                Err(error) if error.kind() == ErrorKind::NotFound => return Err(error),
                Err(_) => self.reflinks = false,
            }
        }
        match fs::hard_link(from, to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                fs::copy(from, to)?;
                keep_time(to, &fs::metadata(from)?)
            }
            linked => linked,
        }
    }
}

/// Whether a file, named from the prefix, is one that people or tools change in place, or that names its own place.
fn is_own(below: &Path) -> bool {
    let mut folders = below.components().map(Component::as_os_str);
    let name = folders.next_back().unwrap_or_default();
    let (first, last) = (below.components().next().map(Component::as_os_str), folders.next_back());
    let Some(last) = last else { return true };
    let top = |folder: &str| first == Some(OsStr::new(folder));
    let metadata =
        matches!(Path::new(last).extension().and_then(OsStr::to_str), Some("dist-info" | "egg-info"));
    top("bin")
        || top("etc")
        || top("share")
        || last == "site-packages"
        || name.as_bytes().ends_with(b".pth")
        || metadata && RECORDS.iter().any(|record| name == *record)
}

/// `text` with `old` replaced by `new` wherever it is not only the beginning of a longer name.
fn replaced(text: Vec<u8>, old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest: &[u8] = &text;
    while let Some(at) = rest.windows(old.len().max(1)).position(|window| window == old) {
        let (before, found) = rest.split_at(at);
        let (found, after) = found.split_at(old.len());
        let longer = after.first().is_some_and(|next| next.is_ascii_alphanumeric() || b"-_".contains(next));
        out.extend_from_slice(before);
        out.extend_from_slice(if longer { found } else { new });
        rest = after;
    }
    if out.is_empty() {
        return text;
    }
    out.extend_from_slice(rest);
    out
}

/// Gives a copy the times of what it is a copy of: byte code is valid for one time of its source.
fn keep_time(copy: &Path, about: &fs::Metadata) -> io::Result<()> {
    let times = FileTimes::new().set_modified(about.modified()?);
    File::open(copy)?.set_times(times)
}

fn failed(path: &Path, error: &io::Error) -> PluginError {
    let text = format!("`{}` could not be copied: {error}", path.display());
    match error.kind() {
        ErrorKind::AlreadyExists => PluginError::new(ErrorCode::Conflict, text),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            PluginError::internal(text).help("Free some space; `runt env stats` says what environments take.")
        }
        _ => PluginError::internal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_in_place_is_the_copys_own() {
        let site = "lib/python3.13/site-packages";
        let own = |path: &str| is_own(Path::new(path)) || is_own(&Path::new(site).join(path));
        for path in
            ["pyvenv.cfg", "bin/pip", "etc/jupyter/x.json", "share/jupyter/kernels/python3/kernel.json"]
        {
            assert!(own(path), "{path}");
        }
        for path in
            ["sitecustomize.py", "easy-install.pth", "a-1.dist-info/RECORD", "a-1.dist-info/direct_url.json"]
        {
            assert!(own(path), "{path}");
        }
        for path in
            ["a/b.py", "a/RECORD", "a-1.dist-info/METADATA", "a/__pycache__/b.cpython-313.pyc", "a/etc/x"]
        {
            assert!(!is_own(&Path::new(site).join(path)), "{path}");
        }
    }

    #[test]
    fn only_the_whole_prefix_is_replaced() {
        let text = |text: &str| String::from_utf8(replaced(text.into(), b"/e/a", b"/envs/b")).unwrap();
        assert_eq!(text("#!/e/a/bin/python\n/e/a"), "#!/envs/b/bin/python\n/envs/b");
        assert_eq!(text("/e/ab /e/a-1 x"), "/e/ab /e/a-1 x");
        assert_eq!(text(""), "");
    }

    #[test]
    fn a_copy_that_is_given_up_stops_at_the_next_file() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("pyvenv.cfg"), "").unwrap();
        let error = Copy::new(&from, &to, Arc::new(AtomicBool::new(true))).run().unwrap_err();
        assert_eq!(error.code, ErrorCode::Cancelled);
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    }
}
