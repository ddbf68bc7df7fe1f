//! Progress and process output: what may be left out when there is too much of it.

use std::sync::Mutex;
use std::time::Instant;

use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{RStr, RString, TD_Opaque};

use super::bucket::Bucket;
use super::link::{Answering, Called, Target};
use super::locked;
use super::remote::{Remote, no_method};
use super::value::{Pack, Packer, Unpack, Unpacker};
use super::wire::Garbage;

/// Steps of one call that pass at once, and in each second (our choice: more than anybody can follow).
const PROGRESS: Bucket = Bucket::new(256, 64);

struct Progress {
    remote: Remote,
    /// Here, too, so that a storm costs the other end nothing.
    steps: Mutex<Bucket>,
}

impl abi::ProgressSink for Progress {
    fn progress(&self, progress: RString) {
        let passes = locked(&self.steps).pass(Instant::now()).is_some();
        if passes {
            self.remote.notify_lossy(0, |to| progress.pack(to));
        }
    }
}

struct OfferedProgress {
    sink: abi::ProgressSinkObject,
    steps: Mutex<Bucket>,
}

impl Target for OfferedProgress {
    fn call(&self, call: Called<'_>) -> Result<Option<Answering>, Garbage> {
        no_method(call.method)
    }

    fn notify(&self, method: u8, mut from: Unpacker<'_>) -> Result<(), Garbage> {
        if method != 0 {
            return no_method(method);
        }
        let progress = RString::unpack(&mut from)?;
        from.end()?;
        let passes = locked(&self.steps).pass(Instant::now()).is_some();
        if passes {
            self.sink.progress(progress);
        }
        Ok(())
    }

    fn lossy(&self) -> bool {
        true
    }
}

impl Pack for abi::ProgressSinkObject {
    fn pack(self, to: &mut Packer<'_>) {
        to.export(OfferedProgress { sink: self, steps: Mutex::new(PROGRESS) });
    }
}

impl Unpack for abi::ProgressSinkObject {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        let progress = Progress { remote: Remote::unpack(from)?, steps: Mutex::new(PROGRESS) };
        Ok(abi::ProgressSink_TO::from_value(progress, TD_Opaque))
    }
}

struct Lines(Remote);

impl abi::ProcessLines for Lines {
    fn line(&self, stderr: bool, line: RStr<'_>) {
        self.0.notify_lossy(0, |to| {
            stderr.pack(to);
            line.pack(to);
        });
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let lost = self.0.link().take_lost();
        if lost > 0 {
            self.0.link().complain(&format!(
                "{lost} process lines or progress steps were left out: they come too fast"
            ));
        }
    }
}

struct OfferedLines(abi::ProcessLinesObject);

impl Target for OfferedLines {
    fn call(&self, call: Called<'_>) -> Result<Option<Answering>, Garbage> {
        no_method(call.method)
    }

    fn notify(&self, method: u8, mut from: Unpacker<'_>) -> Result<(), Garbage> {
        if method != 0 {
            return no_method(method);
        }
        let (stderr, line) = (bool::unpack(&mut from)?, RString::unpack(&mut from)?);
        from.end()?;
        self.0.line(stderr, line.as_rstr());
        Ok(())
    }

    fn lossy(&self) -> bool {
        true
    }
}

impl Pack for abi::ProcessLinesObject {
    fn pack(self, to: &mut Packer<'_>) {
        to.export(OfferedLines(self));
    }
}

impl Unpack for abi::ProcessLinesObject {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        Ok(abi::ProcessLines_TO::from_value(Lines(Remote::unpack(from)?), TD_Opaque))
    }
}
