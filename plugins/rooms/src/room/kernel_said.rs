//! What the kernel says, and what the room makes of it.
//!
//! For: routing messages to the execution, the question or the widget they belong to.
//! Promises: only what answers a request of ours counts; a burst of messages is one change; an execution
//! ends when the kernel is idle after it and has answered its request.
//! Never: fails on what a kernel says; what makes no sense is skipped.

use std::time::Duration;

use runtimed_plugin_api::{Channel, JupyterMessage, Sequence};
use runtimed_protocol::documents::Output;
use runtimed_protocol::documents::runtime_state::{Activity, KernelState};
use serde::Deserialize;
use serde_json::Value as Json;

use super::core::{RoomCore, kept};
use super::event::Effect;
use super::kernel_message::Header;
use super::publication::{Batch, resumed};
use crate::ids::{JobId, LaunchId};
use crate::outputs::{DisplayUpdate, OutputChange};

/// A kernel that is idle after an execution has this long to answer the request, before the execution
/// ends without. Reply and idle travel on two sockets; more than a second between them means that no
/// reply will come.
const REPLY_AFTER_IDLE: Duration = Duration::from_secs(1);

/// Messages that a widget may show in place of the cell.
const OUTPUTS: [&str; 5] = ["stream", "display_data", "execute_result", "error", "clear_output"];

impl RoomCore {
    /// A kernel said something.
    pub(super) fn kernel_said(
        &mut self,
        launch: LaunchId,
        upto: Sequence,
        messages: Vec<(Channel, JupyterMessage)>,
    ) {
        if self.kernel.live() != Some(launch) {
            return;
        }
        self.hearing.heard(upto);
        for (channel, message) in messages {
            let parent = Header::read(&message.parent_header).msg_id;
            let msg_type = Header::read(&message.header).msg_type;
            match channel {
                Channel::Iopub => self.broadcast_came(&parent, &msg_type, &message),
                Channel::Shell => self.reply_came(&parent, &msg_type, &message),
                Channel::Stdin | Channel::Control => {}
            }
        }
    }

    /// Makes a batch of what has been collected, if it is time, and shows it as soon as its blobs are
    /// stored.
    pub(super) fn publish_outputs(&mut self) {
        if !self.publication.is_due(self.now) {
            return;
        }
        let ids = &mut self.ids;
        let (mut batch, blobs) = self.publication.make_batch(self.now, &mut || ids.uuid().to_string());
        batch.mark = self.mark();
        if blobs.is_empty() {
            return self.show(batch);
        }
        let job = self.ids.job();
        self.publication.storing = Some((job, batch));
        self.effects.push(Effect::StoreBlobs { job, blobs });
    }

    /// The blobs of the batch are stored; or could not be, which was logged: a missing picture must not
    /// hide the rest.
    pub(super) fn blobs_stored(&mut self, job: JobId) {
        if let Some((_, batch)) = self.publication.storing.take_if(|(storing, _)| *storing == job) {
            self.show(batch);
        }
    }

    /// Ends an execution whose reply never came.
    pub(super) fn give_up_overdue_reply(&mut self) {
        if self.reply_overdue.take_if(|at| *at <= self.now).is_some() {
            let ended = self.queue.reply_overdue();
            self.settle(ended);
        }
    }

    /// The kernel is gone: nothing more can come from it, or go to it.
    pub(super) fn nothing_more_comes(&mut self) {
        self.reply_overdue = None;
        self.forget_widgets();
    }

    fn broadcast_came(&mut self, parent: &str, msg_type: &str, message: &JupyterMessage) {
        match msg_type {
            "status" => {
                let idle = is_idle(&message.content);
                self.widgets_heard(parent, idle);
                if idle {
                    let ended = self.queue.idle(parent);
                    self.settle(ended);
                    self.reply_overdue = self.queue.awaits_reply().then(|| self.now + REPLY_AFTER_IDLE);
                }
            }
            "update_display_data" => {
                if let Some(update) = DisplayUpdate::parse(&message.content) {
                    let collectors = self.publication.collectors.values_mut();
                    collectors.for_each(|collector| collector.update_display(&update));
                    self.publication.captures.update_display(&update);
                    self.publication.next.update(update);
                }
            }
            "comm_open" | "comm_msg" | "comm_close" => self.widget_message(msg_type, message),
            _ => self.collect(parent, msg_type, &message.content),
        }
    }

    fn reply_came(&mut self, parent: &str, msg_type: &str, message: &JupyterMessage) {
        if msg_type != "execute_reply" {
            return self.answer_question(parent, &message.content);
        }
        self.collect(parent, msg_type, &message.content);
        let ended = self.queue.replied(parent, is_ok(&message.content));
        self.settle(ended);
        if !self.queue.awaits_reply() {
            self.reply_overdue = None;
        }
    }

    /// Adds to the outputs of the execution that `parent` names, if it is one of ours.
    pub(super) fn collect(&mut self, parent: &str, msg_type: &str, content: &[u8]) {
        let ids = &mut self.ids;
        let mut new_id = || ids.uuid().to_string();
        if OUTPUTS.contains(&msg_type)
            && let Some(collector) = self.publication.captures.of(parent)
        {
            return collector.take(msg_type, content, &mut new_id);
        }
        if !self.publication.collectors.contains_key(parent) {
            // A thread goes on printing after its cell is done, and even after the room forgot it.
            if self.documents.runtime.execution(parent).is_none() {
                return;
            }
            let collector = resumed(self.documents.runtime.outputs(parent));
            self.publication.collectors.insert(parent.into(), collector);
        }
        let Some(collector) = self.publication.collectors.get_mut(parent) else { return };
        collector.take(msg_type, content, &mut new_id);
        if msg_type == "execute_input"
            && let Some(count) = collector.execution_count()
        {
            self.publication.next.counts.push((parent.into(), count));
        }
        if collector.failed() {
            self.queue.failed(parent);
        }
    }

    /// Puts a batch into the documents.
    fn show(&mut self, batch: Batch) {
        let Batch { updates, counts, outputs, ended, widgets, captured, kernel, mark } = batch;
        self.show_widgets(widgets);
        self.show_captured(captured);
        self.hearing.show(mark);
        let mut saved_content = !ended.is_empty() || !outputs.is_empty();
        for update in updates {
            saved_content |= self.update_displays(&update);
        }
        let runtime = &mut self.documents.runtime;
        for (id, count) in counts {
            kept(runtime.set_execution_count(&id, count));
        }
        for (id, change) in outputs {
            kept(match change {
                OutputChange::Put { seq, output, .. } => runtime.put_output(&id, seq, &output),
                OutputChange::Remove { output_id } => runtime.remove_output(&id, &output_id),
            });
        }
        for (id, outcome) in &ended {
            kept(runtime.finish_execution(id, *outcome));
        }
        if !ended.is_empty() {
            self.start_held = None;
            // All in one change: a client that waits for the end waits for silence after it, too.
            self.show_queue();
            if self.queue.executing().is_none() && self.kernel.up().is_some() {
                kept(self.documents.runtime.set_kernel_state(&KernelState::Running(Activity::Idle)));
            }
            self.record(ended.iter().map(|(id, _)| id));
            self.forget_superseded();
        }
        if let Some(state) = kernel {
            self.write_kernel(state);
        }
        if saved_content {
            self.saving.changed(self.now);
        }
    }

    /// Shows an update in every output that is in the document. Says whether there was one.
    fn update_displays(&mut self, update: &DisplayUpdate) -> bool {
        self.update_captured(update);
        let runtime = &mut self.documents.runtime;
        let places = runtime.displays(&update.display_id);
        for (execution, output_id) in &places {
            let manifest = runtime.output(execution, output_id);
            if let Some(mut output) = manifest.as_ref().and_then(Output::from_json)
                && update.apply(&mut output)
            {
                // The place is the one it has.
                kept(runtime.put_output(execution, 0, &output));
            }
        }
        !places.is_empty()
    }
}

fn is_idle(content: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Content<'a> {
        execution_state: &'a str,
    }
    serde_json::from_slice::<Content<'_>>(content).is_ok_and(|content| content.execution_state == "idle")
}

fn is_ok(content: &[u8]) -> bool {
    let content: Json = serde_json::from_slice(content).unwrap_or_default();
    content.get("status").and_then(Json::as_str) == Some("ok")
}
