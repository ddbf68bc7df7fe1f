//! Progress and process output: small sinks that travel with a call.

use std::sync::Arc;

use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{RStr, RString, TD_Opaque};

use super::Side;
use super::convert::{json, parse};
use super::served::Served;
use crate::{ProcessLines, Progress, ProgressSink, Task};

pub(super) fn serve_task(task: &Task, side: &Side) -> abi::ProgressSinkObject {
    abi::ProgressSink_TO::from_value(Served::new(task.sink().clone(), side), TD_Opaque)
}

impl abi::ProgressSink for Served<dyn ProgressSink> {
    fn progress(&self, progress: RString) {
        if let Ok(progress) = parse(&progress) {
            self.call(|| (), |sink| sink.progress(progress));
        }
    }
}

pub(super) fn remote_task(object: abi::ProgressSinkObject) -> Task {
    Task::new(Arc::new(RemoteSink(object)))
}

struct RemoteSink(abi::ProgressSinkObject);

impl ProgressSink for RemoteSink {
    fn progress(&self, progress: Progress) {
        if let Ok(progress) = json(&progress) {
            self.0.progress(progress);
        }
    }
}

pub(super) fn serve_lines(lines: Arc<dyn ProcessLines>, side: &Side) -> abi::ProcessLinesObject {
    abi::ProcessLines_TO::from_value(Served::new(lines, side), TD_Opaque)
}

impl abi::ProcessLines for Served<dyn ProcessLines> {
    fn line(&self, stderr: bool, line: RStr<'_>) {
        self.call(|| (), |lines| lines.line(stderr, line.as_str()));
    }
}

pub(super) fn remote_lines(object: abi::ProcessLinesObject) -> Arc<dyn ProcessLines> {
    Arc::new(RemoteLines(object))
}

struct RemoteLines(abi::ProcessLinesObject);

impl ProcessLines for RemoteLines {
    fn line(&self, stderr: bool, line: &str) {
        self.0.line(stderr, line.into());
    }
}
