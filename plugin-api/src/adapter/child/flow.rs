//! Credit of one direction of one room connection, as it is told across a socket.
//!
//! For: `send` and `receive`, which return at once how much more the other side takes: the sender's end answers
//! from what it has sent and heard, the receiver's end passes on what the consumer really says.
//! Promises: at most [`WINDOW`] and one frame are under way; once the consumer takes frames again, the sender is
//! told. Credit may be told too high for a moment, never too low for good.

use crate::Credit;

/// Bytes under way in one direction (our choice: several times what the socket holds, far less than the windows
/// of rooms and connections).
pub(super) const WINDOW: Credit = 1 << 20;
/// Less than this is not worth a message.
const WORTH_TELLING: u64 = WINDOW as u64 / 4;

/// Where frames come from.
#[derive(Debug, Default)]
pub(super) struct Sender {
    under_way: Credit,
    /// Somebody was told to wait.
    exhausted: bool,
}

impl Sender {
    /// A frame was sent. Returns the credit that is left.
    pub(super) fn sent(&mut self, bytes: usize) -> Credit {
        self.under_way = self.under_way.saturating_add(Credit::try_from(bytes).unwrap_or(Credit::MAX));
        let credit = WINDOW.saturating_sub(self.under_way);
        self.exhausted |= credit <= 0;
        credit
    }

    /// The receiver's end has told of consumed bytes. Returns whether somebody waits for that news.
    pub(super) fn consumed(&mut self, bytes: u64) -> bool {
        let bytes = Credit::try_from(bytes).unwrap_or(Credit::MAX);
        // More than was sent is the other end's mistake, and no credit.
        self.under_way = self.under_way.saturating_sub(bytes).max(0);
        let writable = self.exhausted && self.under_way < WINDOW;
        self.exhausted &= !writable;
        writable
    }
}

/// Where frames are handed to the consumer.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// Consumed, but not told yet.
    held: u64,
    /// What the consumer said last.
    credit: Credit,
    /// What it granted since it was last handed something.
    granted: Credit,
}

impl Receiver {
    /// A frame is about to be handed over.
    pub(super) fn handing(&mut self) {
        self.granted = 0;
    }

    /// The consumer took a frame and has this much credit left.
    pub(super) fn handed(&mut self, bytes: usize, credit: Credit) {
        self.held = self.held.saturating_add(bytes as u64);
        self.credit = credit;
    }

    /// The consumer takes this much more.
    pub(super) fn granted(&mut self, bytes: u64) {
        self.granted = self.granted.saturating_add(Credit::try_from(bytes).unwrap_or(Credit::MAX));
    }

    /// What to tell the sender now, zero for nothing.
    pub(super) fn news(&mut self) -> u64 {
        if self.held < WORTH_TELLING || self.credit.saturating_add(self.granted) <= 0 {
            return 0;
        }
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_without_credit_stops_the_sender_and_a_grant_lets_it_go_on() {
        let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
        let mut sent = 0;
        while sender.sent(100_000) > 0 {
            sent += 1;
            receiver.handing();
            receiver.handed(100_000, -5);
            assert_eq!(receiver.news(), 0, "the consumer takes no more");
        }
        assert_eq!(sent, WINDOW / 100_000);
        receiver.granted(5);
        assert_eq!(receiver.news(), 0, "a debt is not credit");
        receiver.granted(1);
        let told = receiver.news();
        assert_eq!(told, 1_000_000);
        assert!(sender.consumed(told), "who was told to wait hears of it");
        assert!(!sender.consumed(0), "once");
    }

    #[test]
    fn a_grant_while_a_frame_is_handed_over_is_not_lost() {
        let mut receiver = Receiver::default();
        receiver.handing();
        receiver.granted(2_000_000);
        receiver.handed(1_000_000, -900_000);
        assert_eq!(receiver.news(), 1_000_000);
    }

    #[test]
    fn a_lying_end_gets_no_credit() {
        let mut sender = Sender::default();
        assert_eq!(sender.sent(1), WINDOW - 1);
        assert!(!sender.consumed(u64::MAX));
        assert_eq!(sender.sent(1), WINDOW - 1);
    }
}
