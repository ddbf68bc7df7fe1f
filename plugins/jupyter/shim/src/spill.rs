//! The disk, in a thread of its own.
//!
//! For: messages that are too many for memory.
//! Promises: nobody waits for the disk but this thread; its files have no names, so that the system deletes them when
//! the shim is gone, however it went.
//! Never: syncs. The files are of no use to anybody without the shim.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, PipeWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use bytes::Bytes;

/// What to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Add frames to a file, which is made if need be.
    Write { file: u64, frames: Vec<Bytes> },
    /// Read `length` bytes, or up to the end of the file.
    Read { client: u64, file: u64, offset: u64, length: usize },
    /// Delete a file.
    Forget { file: u64 },
}

/// What was done.
#[derive(Debug)]
pub(crate) enum Done {
    Written { file: u64, result: io::Result<()> },
    Read { client: u64, file: u64, offset: u64, result: io::Result<Bytes> },
}

/// The way to the thread, which ends with this.
pub(crate) struct Spill {
    jobs: Sender<Job>,
    answers: Receiver<Done>,
}

impl Spill {
    /// Starts the thread. Files will lie in `folder`, which is made if need be; `wake` gets a byte for each answer.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn new(folder: PathBuf, mut wake: PipeWriter) -> io::Result<Self> {
        let (jobs, inbox) = channel();
        let (outbox, answers) = channel();
        thread::Builder::new().name("spill".into()).spawn(move || {
            let mut files = HashMap::new();
            for job in inbox {
                if let Some(done) = perform(job, &mut files, &folder)
                    && (outbox.send(done).is_err() || wake.write_all(&[1]).is_err())
                {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, answers })
    }

    /// Hands a job to the thread.
    pub(crate) fn start(&self, job: Job) {
        // The thread goes on as long as its answers can be sent, which is as long as this is there.
        let _ = self.jobs.send(job);
    }

    /// The next answer, if there is one.
    pub(crate) fn answer(&self) -> Option<Done> {
        self.answers.try_recv().ok()
    }
}

fn perform(job: Job, files: &mut HashMap<u64, File>, folder: &Path) -> Option<Done> {
    match job {
        Job::Write { file, frames } => {
            let result = append(files, file, &frames, folder);
            Some(Done::Written { file, result })
        }
        Job::Read { client, file, offset, length } => {
            let read = files.get(&file).ok_or_else(|| io::ErrorKind::NotFound.into());
            let result = read.and_then(|file| read_up_to(file, offset, length));
            Some(Done::Read { client, file, offset, result })
        }
        Job::Forget { file } => {
            files.remove(&file);
            None
        }
    }
}

fn append(files: &mut HashMap<u64, File>, name: u64, frames: &[Bytes], folder: &Path) -> io::Result<()> {
    let file = match files.entry(name) {
        std::collections::hash_map::Entry::Occupied(file) => file.into_mut(),
        std::collections::hash_map::Entry::Vacant(place) => {
            fs::create_dir_all(folder)?;
            place.insert(tempfile::tempfile_in(folder)?)
        }
    };
    let mut file = io::BufWriter::with_capacity(64 << 10, file);
    frames.iter().try_for_each(|frame| file.write_all(frame))?;
    file.flush()
}

fn read_up_to(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    let mut have = 0;
    while let Some(rest @ [_, ..]) = bytes.get_mut(have..) {
        match file.read_at(rest, offset + have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(have);
    Ok(bytes.into())
}
