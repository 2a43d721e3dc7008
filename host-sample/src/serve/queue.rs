//! Which mailboxes this node is at. [`Queue::tick`] renews their leases and claims those that are due; who is claimed is
//! worked on, and ends with [`Queue::end`]. Time comes in from outside.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::storage::{Due, Finished, LEASE_SECONDS, Storage};
use crate::failure::Result;

/// Leases are renewed three times before they end.
const RENEW_SECONDS: i64 = LEASE_SECONDS / 3;

pub struct Queue {
    storage: Storage,
    pub node: String,
    /// Rounds at the same time.
    threads: usize,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    rounds: BTreeMap<i64, Due>,
    renewed: i64,
}

/// What a tick decided.
#[derive(Debug, Default)]
pub struct Tick {
    /// To be begun.
    pub claimed: Vec<Due>,
    /// Another node has them now: their rounds must end.
    pub lost: Vec<i64>,
    /// No thread is free now.
    pub is_full: bool,
}

impl Queue {
    pub fn new(storage: Storage, node: String, threads: usize) -> Self {
        Self { storage, node, threads: threads.max(1), running: Mutex::default() }
    }

    pub fn running(&self) -> Vec<i64> {
        self.lock().rounds.keys().copied().collect()
    }

    /// Mailboxes that failed or were slow get at most half of the threads, so that the others stay on time.
    pub fn tick(&self, now: i64) -> Result<Tick> {
        let mut tick = Tick { lost: self.renew(now)?, ..Tick::default() };
        let (free, free_for_troubled) = {
            let running = self.lock();
            let troubled = running.rounds.values().filter(|due| due.troubled).count();
            let free = self.threads.saturating_sub(running.rounds.len());
            (free, free.min(self.threads.div_ceil(2).saturating_sub(troubled)))
        };
        if free == 0 {
            return Ok(Tick { is_full: true, ..tick });
        }
        for due in self.storage.due(now, &self.node, free, free_for_troubled)? {
            if tick.claimed.len() == free {
                break;
            }
            match self.begin(now, due.clone()) {
                Ok(true) => tick.claimed.push(due),
                Ok(false) => {}
                // Those that were claimed must run; the next tick meets the fault again.
                Err(_) if !tick.claimed.is_empty() => break,
                Err(failure) => return Err(failure),
            }
        }
        tick.is_full = tick.claimed.len() == free;
        Ok(tick)
    }

    /// Claims one mailbox. `false`: somebody is at it.
    pub fn begin(&self, now: i64, due: Due) -> Result<bool> {
        let mailbox = due.mailbox;
        if self.lock().rounds.contains_key(&mailbox) || !self.storage.claim(now, &self.node, mailbox)? {
            return Ok(false);
        }
        self.lock().rounds.insert(mailbox, due);
        Ok(true)
    }

    /// `None`: the round was stopped and says nothing; it is due as before.
    pub fn end(&self, due: &Due, finished: Option<&Finished>) -> Result<()> {
        let done = match finished {
            Some(finished) => self.storage.finish(&self.node, due.mailbox, due.next_run, finished),
            None => self.storage.release(&self.node, due.mailbox),
        };
        // If it could not be written, the lease ends by itself.
        self.lock().rounds.remove(&due.mailbox);
        done
    }

    /// Gives up all that is under way, each due as before; their rounds say nothing any more.
    pub fn abandon(&self) -> Vec<i64> {
        let rounds = std::mem::take(&mut self.lock().rounds);
        for mailbox in rounds.keys() {
            // Without a database the lease ends by itself.
            let _ = self.storage.release(&self.node, *mailbox);
        }
        rounds.into_keys().collect()
    }

    /// Those that another node has now.
    pub fn renew(&self, now: i64) -> Result<Vec<i64>> {
        let mailboxes: Vec<i64> = {
            let running = self.lock();
            if now < running.renewed + RENEW_SECONDS && now >= running.renewed {
                return Ok(Vec::new());
            }
            running.rounds.keys().copied().collect()
        };
        let lost = match mailboxes.is_empty() {
            true => Vec::new(),
            false => self.storage.renew(now, &self.node, &mailboxes)?,
        };
        self.lock().renewed = now;
        // One that ended meanwhile was not lost.
        let running = self.lock();
        Ok(lost.into_iter().filter(|mailbox| running.rounds.contains_key(mailbox)).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        failure::Failure,
        serve::{
            pace::{End, Pace},
            storage::{
                Counts,
                tests::{change, refuse_claims, storage},
            },
        },
    };

    /// A day of mailboxes in a moment: rounds last as long as `seconds_of` says, in seconds of a clock that only counts.
    struct Day<'a> {
        queues: Vec<Queue>,
        /// When a round ends, on which node.
        ends: Vec<(i64, usize, Due)>,
        /// Mailbox, how late it began.
        begun: Vec<(i64, i64)>,
        seconds_of: &'a dyn Fn(i64) -> i64,
        fails: &'a dyn Fn(i64) -> bool,
    }

    impl Day<'_> {
        fn run(&mut self, from: i64, to: i64) {
            for now in from..to {
                let (ended, running) = std::mem::take(&mut self.ends).into_iter().partition(|(end, ..)| *end <= now);
                self.ends = running;
                for (_, node, due) in ended {
                    self.end(now, node, &due);
                }
                for node in 0..self.queues.len() {
                    let tick = self.queues[node].tick(now).unwrap();
                    for due in tick.claimed {
                        self.begun.push((due.mailbox, now - due.next_run));
                        self.ends.push((now + (self.seconds_of)(due.mailbox), node, due));
                    }
                    let twice =
                        self.ends.iter().map(|(.., due)| due.mailbox).collect::<std::collections::BTreeSet<_>>();
                    assert_eq!(twice.len(), self.ends.len(), "one round per mailbox at a time");
                    assert!(self.queues[node].running().len() <= self.queues[node].threads);
                }
            }
        }

        fn end(&self, now: i64, node: usize, due: &Due) {
            let end = match (self.fails)(due.mailbox) {
                true => End::Failed(Failure::other("Timed out.")),
                false => End::Done,
            };
            let pace = Pace { mailbox: due.mailbox, due: due.next_run, now, interval: 60, failures: due.failures };
            let finished = Finished {
                counts_as_failure: true,
                started: now - (self.seconds_of)(due.mailbox),
                ended: now,
                next_run: pace.next(&end),
                result: "ok".into(),
                error: matches!(end, End::Failed(_)).then(|| serde_json::json!({"kind": "transient"})),
                counts: Counts::default(),
            };
            self.queues[node].end(due, Some(&finished)).unwrap();
        }

        fn rounds(&self, mailbox: i64) -> usize {
            self.begun.iter().filter(|(begun, _)| *begun == mailbox).count()
        }
    }

    fn mailboxes(count: usize) -> (Storage, i64) {
        let storage = storage();
        for number in 0..count {
            storage.insert_mailbox("ann", &change(&number.to_string())).unwrap();
        }
        let now = storage.now().unwrap();
        (storage, now)
    }

    fn day<'a>(queues: Vec<Queue>, seconds_of: &'a dyn Fn(i64) -> i64, fails: &'a dyn Fn(i64) -> bool) -> Day<'a> {
        Day { queues, ends: Vec::new(), begun: Vec::new(), seconds_of, fails }
    }

    #[test]
    fn slow_and_broken_mailboxes_do_not_delay_the_others() {
        let (storage, now) = mailboxes(20);
        // Six hang for two minutes and fail, with four threads: more than all of them.
        let slow = |mailbox: i64| mailbox <= 6;
        let seconds_of = |mailbox: i64| if slow(mailbox) { 120 } else { 1 };
        let mut day = day(vec![Queue::new(storage, "one".into(), 4)], &seconds_of, &slow);
        // Until each has shown once what it is like.
        day.run(now, now + 600);
        day.begun.clear();
        day.run(now + 600, now + 3_600);
        let late = day.begun.iter().filter(|(mailbox, _)| !slow(*mailbox)).map(|(_, late)| *late).max().unwrap();
        assert!(late <= 6, "late by {late} s");
        for mailbox in 7..=20 {
            let rounds = day.rounds(mailbox);
            assert!((45..=55).contains(&rounds), "{rounds} rounds of mailbox {mailbox} in 50 minutes");
        }
        for mailbox in 1..=6 {
            assert!((1..=12).contains(&day.rounds(mailbox)), "{} rounds of {mailbox}", day.rounds(mailbox));
        }
    }

    #[test]
    fn a_node_that_dies_is_made_up_for_within_a_minute() {
        let (storage, now) = mailboxes(6);
        let queues = ["one", "two"].map(|node| Queue::new(storage.clone(), node.into(), 6));
        let mut day = day(queues.into(), &|_| 40, &|_| false);
        day.run(now, now + 20);
        assert!(day.ends.len() == 6 && day.ends.iter().all(|(_, node, _)| *node == 0), "the first one took all");
        day.queues.remove(0);
        day.ends.clear();
        day.begun.clear();
        day.run(now + 20, now + 20 + 60);
        for mailbox in 1..=6 {
            assert_eq!(day.rounds(mailbox), 1, "mailbox {mailbox}");
        }
    }

    #[test]
    fn what_was_claimed_runs_also_when_the_next_claim_fails() {
        let (storage, now) = mailboxes(3);
        refuse_claims(&storage, 2);
        let queue = Queue::new(storage, "one".into(), 4);
        let claimed: Vec<i64> = queue.tick(now).unwrap().claimed.iter().map(|due| due.mailbox).collect();
        assert_eq!((claimed, queue.running()), (vec![1], vec![1]));
        assert!(queue.tick(now).is_err(), "and it is told with the next tick");
    }

    #[test]
    fn a_round_that_was_stopped_is_due_at_once_for_another_node() {
        let (storage, now) = mailboxes(1);
        let [one, two] = ["one", "two"].map(|node| Queue::new(storage.clone(), node.into(), 1));
        let due = one.tick(now).unwrap().claimed.remove(0);
        assert!(two.tick(now).unwrap().claimed.is_empty());
        one.end(&due, None).unwrap();
        assert!(one.running().is_empty());
        assert_eq!(two.tick(now).unwrap().claimed, [due]);
    }

    #[test]
    fn a_paused_mailbox_and_one_that_only_sends_are_not_fetched() {
        let (storage, now) = mailboxes(0);
        storage.insert_mailbox("ann", &crate::serve::storage::Change { paused: true, ..change("paused") }).unwrap();
        let outgoing = crate::serve::storage::Change { incoming: None, ..change("outgoing") };
        storage.insert_mailbox("ann", &outgoing).unwrap();
        assert!(Queue::new(storage, "one".into(), 4).tick(now + 9).unwrap().claimed.is_empty());
    }
}
