//! An outbox that sends nothing: it records what it was given and answers what it was told to. For tests of everything
//! above the transports, and for hosts that try things out.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{Envelope, Offer, Outbox, Outcome, Proof};
use crate::{clock::Deadline, net::TlsFacts, seam};

/// The test's end. Clones share one record.
#[derive(Clone, Default)]
pub struct Stub(Arc<Mutex<State>>);

/// What one `send` was given.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub envelope: Envelope,
    pub raw: Vec<u8>,
}

#[derive(Default)]
struct State {
    recorded: Vec<Recorded>,
    script: VecDeque<(Outcome, bool)>,
    stale: bool,
    opened: usize,
}

impl Stub {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next `send` without an outcome yet ends so; without any, messages are `Sent`.
    pub fn then(&self, outcome: Outcome) -> &Self {
        self.state().script.push_back((outcome, false));
        self
    }

    /// The same, and `lost()` is true after it.
    pub fn then_lost(&self, outcome: Outcome) -> &Self {
        self.state().script.push_back((outcome, true));
        self
    }

    /// Makes `is_fresh` answer no, until the next [`Stub::outbox`].
    pub fn go_stale(&self) {
        self.state().stale = true;
    }

    /// An outbox over this record, as a transport's `open` would give it.
    pub fn outbox(&self) -> Box<dyn Outbox> {
        let mut state = self.state();
        state.opened += 1;
        state.stale = false;
        Box::new(StubOutbox { stub: self.clone(), lost: false })
    }

    /// What was sent so far, whatever became of it.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.state().recorded.clone()
    }

    /// How many outboxes were opened.
    pub fn opened(&self) -> usize {
        self.state().opened
    }

    fn state(&self) -> MutexGuard<'_, State> {
        seam::lock("stub", &self.0)
    }
}

pub struct StubOutbox {
    stub: Stub,
    lost: bool,
}

impl Outbox for StubOutbox {
    fn proof(&self) -> Proof {
        Proof {
            protocol: "stub",
            mechanism: "none",
            port: 0,
            tls: TlsFacts {
                proxy: None,
                server: "stub".into(),
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                version: "none".into(),
                cipher_suite: "none".into(),
                certificate_sha256: String::new(),
            },
        }
    }

    fn send(&mut self, envelope: &Envelope, raw: &[u8], _deadline: Deadline, offer: Offer<'_>) -> Outcome {
        if let Err(error) = offer() {
            return Outcome::Retry { error, after: None };
        }
        let mut state = self.stub.state();
        state.recorded.push(Recorded { envelope: envelope.clone(), raw: raw.to_vec() });
        let number = state.recorded.len();
        let (outcome, lost) = state.script.pop_front().unwrap_or_else(|| {
            let reply = format!("250 2.0.0 Ok: recorded as {number}");
            (Outcome::Sent { reply, server: "stub".into(), refused: Vec::new() }, false)
        });
        self.lost = lost;
        outcome
    }

    fn is_fresh(&mut self) -> bool {
        !self.stub.state().stale
    }

    fn lost(&self) -> bool {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};

    #[test]
    fn outcomes_come_in_order_and_all_is_recorded() {
        let stub = Stub::new();
        stub.then_lost(Outcome::Retry { error: Error::new(Kind::Transient, "Gone."), after: None });
        let mut outbox = stub.outbox();
        let envelope = Envelope { from: None, to: vec!["a@a.test".parse().unwrap()] };
        let deadline = Deadline::after(std::time::Duration::from_secs(1));
        assert!(matches!(outbox.send(&envelope, b"A: b\r\n", deadline, &mut || Ok(())), Outcome::Retry { .. }));
        assert!(outbox.lost());
        assert!(matches!(outbox.send(&envelope, b"A: b\r\n", deadline, &mut || Ok(())), Outcome::Sent { .. }));
        assert!(!outbox.lost());
        assert_eq!(stub.recorded().len(), 2);
    }
}
