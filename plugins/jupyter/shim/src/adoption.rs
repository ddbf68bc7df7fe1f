//! A kernel that is nobody's yet becomes somebody's.
//!
//! For: kernels that are started before anybody wants them.
//! Promises: whoever adopts a kernel hears nothing that it said before, and takes the place of the one that launched
//! it: until that one too says that the kernel is wanted, the kernel ends with its connection. The record says whose
//! it is before anybody is told. What goes wrong leaves the kernel with whom it was.

use crate::channel::Name;
use crate::client::{End, Reading};
use crate::message::Message;
use crate::protocol::{Adopt, Frame, Refused, document, frame, from_shim};
use crate::record::Record;
use crate::run::note;
use crate::shim::{Shim, Stage};
use crate::silent::Silent;

/// An adoption that is under way.
pub(crate) struct Adoption {
    /// The connection that asked.
    client: u64,
    asked: Adopt,
    preparation: Silent,
}

impl Shim {
    /// A daemon wants a kernel that is nobody's yet.
    pub(crate) fn adopt(&mut self, at: usize, frame: &Frame) {
        let Some(client) = self.clients.get(at).map(|client| client.id) else { return };
        let asked = match frame.document::<Adopt>() {
            Ok(asked) => asked,
            Err(error) => return self.refuse(client, &format!("the request cannot be read: {error}")),
        };
        if self.accepted || self.adoption.is_some() || !matches!(self.stage, Stage::Running) {
            return self.refuse(client, "the kernel is another's, or not up");
        }
        if asked.preparation.is_empty() {
            return self.hand_over(client, asked);
        }
        let (preparation, request) = Silent::new(&self.session, &asked.preparation);
        self.adoption = Some(Adoption { client, asked, preparation });
        self.send(Name::Shell, request);
    }

    /// Takes what the kernel said; false if that has nothing to do with an adoption.
    pub(crate) fn is_of_adoption(&mut self, name: Name, message: &Message) -> bool {
        let Some(adoption) = &mut self.adoption else { return false };
        if !adoption.preparation.take(name, message) {
            return false;
        }
        let Some(outcome) = adoption.preparation.outcome().cloned() else { return true };
        if let Some(Adoption { client, asked, .. }) = self.adoption.take() {
            match outcome {
                Ok(()) => self.hand_over(client, asked),
                Err(error) => self.refuse(client, &error),
            }
        }
        true
    }

    /// The kernel is gone, and with it what is under way.
    pub(crate) fn give_up_adoption(&mut self) {
        if let Some(Adoption { client, .. }) = self.adoption.take() {
            self.refuse(client, "the kernel has ended");
        }
    }

    fn hand_over(&mut self, client: u64, asked: Adopt) {
        if self.accepted {
            return self.refuse(client, "the kernel is another's");
        }
        // Who is gone meanwhile wants nothing.
        let Some(at) = self.clients.iter().position(|it| it.id == client && it.end == End::No) else {
            return;
        };
        let record = Record::new(&asked.kernel, self.process.id(), asked.label.clone());
        if let Err(error) = record.write(self.folder()) {
            note(format_args!("the record of a new owner was not written: {error}"));
            return self.refuse(client, &format!("its record was not written: {error}"));
        }
        self.launch.kernel = asked.kernel;
        self.launch.label = asked.label;
        let last = self.journal.last();
        let gone = self.journal.acknowledge(last);
        self.forget(gone);
        self.replace_others(at);
        let adopted = document(from_shim::ADOPTED, &self.attached(last));
        for client in &mut self.clients {
            client.launcher = false;
        }
        if let Some(client) = self.clients.get_mut(at) {
            client.launcher = true;
            client.push(adopted);
            client.reading = Some(Reading { next: last + 1, ..Reading::default() });
        }
    }

    fn refuse(&mut self, client: u64, message: &str) {
        let refused = document(from_shim::REFUSED, &Refused { message: message.to_owned() });
        if let Some(client) = self.clients.iter_mut().find(|it| it.id == client) {
            client.push(refused);
        }
    }

    /// The connection at this place has the kernel now; who had it is told and goes.
    pub(crate) fn replace_others(&mut self, at: usize) {
        for (_, other) in self.clients.iter_mut().enumerate().filter(|(place, _)| *place != at) {
            if other.reading.take().is_some() {
                other.push(frame(from_shim::REPLACED, &[]));
                other.end = End::Soon;
            }
        }
    }
}
