//! When a mailbox is due again.
//!
//! | the round | the next one |
//! |---|---|
//! | ended well | after the interval of the form, ±10 % by chance that the mailbox seeds |
//! | has more to fetch | at once, behind those that wait already |
//! | was another node's | when that node's claim ends |
//! | must wait for the provider | after `retry_after_seconds`, at least the exponential wait |
//! | failed for what waiting may cure | after 30 s, doubled each time, at most an hour (or the interval) |
//! | needs a person | after an hour (or the interval): a change of settings or a consent makes it due at once |

use oauth_mail_abi::Kind;

use crate::failure::Failure;

/// As the form pre-fills it.
pub const INTERVAL_MINUTES_DEFAULT: i64 = 5;
const BACK_OFF_FIRST: i64 = 30;
const BACK_OFF_MAX: i64 = 3_600;
const PERSON_SECONDS: i64 = 3_600;
/// A provider that asks for more is asked again after a day.
const RETRY_AFTER_MAX: i64 = 86_400;

/// How a round ended.
#[derive(Debug)]
pub enum End {
    Done,
    /// It ended well, though not at the end of the mailbox.
    More,
    /// For so many seconds at most.
    Elsewhere(i64),
    Failed(Failure),
}

/// A mailbox that ended a round.
#[derive(Clone, Copy)]
pub struct Pace {
    pub mailbox: i64,
    /// When it was due.
    pub due: i64,
    pub now: i64,
    pub interval: i64,
    /// Rounds in a row that failed before this one.
    pub failures: i64,
}

impl Pace {
    pub fn next(self, end: &End) -> i64 {
        let Self { now, interval, .. } = self;
        match end {
            End::Done => {
                let wait = self.jittered(interval);
                let next = self.due + wait;
                if next > now { next } else { now + wait }
            }
            End::More => now,
            End::Elsewhere(seconds) => now + (*seconds).clamp(1, interval.max(1)),
            End::Failed(Failure::Hook(error)) => match error.kind() {
                Kind::Settings | Kind::ConsentRequired | Kind::AdminRequired | Kind::Refused | Kind::Unsupported => {
                    now + self.jittered(interval.max(PERSON_SECONDS))
                }
                _ => {
                    let asked = error.retry_after_seconds().map_or(0, |seconds| (seconds as i64).min(RETRY_AFTER_MAX));
                    now + self.back_off().max(asked)
                }
            },
            End::Failed(Failure::Settings(_)) => now + self.jittered(interval.max(PERSON_SECONDS)),
            End::Failed(_) => now + self.back_off(),
        }
    }

    fn back_off(self) -> i64 {
        let doubled = BACK_OFF_FIRST << self.failures.clamp(0, 20);
        self.jittered(doubled.min(BACK_OFF_MAX.max(self.interval)))
    }

    /// ±10 %, by the mailbox and the time, so that mailboxes which began together drift apart.
    fn jittered(self, seconds: i64) -> i64 {
        let chance = mixed(self.mailbox as u64 ^ (self.now as u64).rotate_left(32));
        let tenths = (chance % 201) as i64 - 100;
        seconds + seconds * tenths / 1_000
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(mailbox: i64, failures: i64) -> Pace {
        Pace { mailbox, due: 1_000, now: 1_010, interval: 300, failures }
    }

    #[test]
    fn the_interval_is_kept_from_due_time_to_due_time_with_a_tenth_of_chance() {
        let next: Vec<i64> = (0..500).map(|mailbox| pace(mailbox, 0).next(&End::Done)).collect();
        assert!(next.iter().all(|next| (1_270..=1_330).contains(next)));
        let spread = next.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(spread > 40, "{spread} different seconds of 61");
        let mean = next.iter().sum::<i64>() / 500;
        assert!((1_295..=1_305).contains(&mean), "{mean}");
        // A round that took longer than the interval is not made up for.
        let late = Pace { now: 5_000, ..pace(1, 0) }.next(&End::Done);
        assert!((5_270..=5_330).contains(&late), "{late}");
    }

    #[test]
    fn failures_are_tried_again_later_and_later_but_not_for_ever() {
        let lost = || End::Failed(Failure::other("Connection reset."));
        let waits: Vec<i64> = (0..12).map(|failures| pace(3, failures).next(&lost()) - 1_010).collect();
        assert!((27..=33).contains(&waits[0]), "{waits:?}");
        assert!((54..=66).contains(&waits[1]) && (108..=132).contains(&waits[2]), "{waits:?}");
        assert!(waits[7..].iter().all(|wait| (3_240..=3_960).contains(wait)), "{waits:?}");
        assert!(pace(3, i64::MAX).next(&lost()) > 1_010);
    }

    #[test]
    fn what_needs_a_person_is_asked_rarely_and_what_has_more_at_once() {
        let wait = pace(3, 0).next(&End::Failed(Failure::settings("Port is 0."))) - 1_010;
        assert!((3_240..=3_960).contains(&wait), "{wait}");
        assert_eq!(pace(3, 0).next(&End::More), 1_010);
        assert_eq!(pace(3, 0).next(&End::Elsewhere(7)), 1_017);
        assert_eq!(pace(3, 0).next(&End::Elsewhere(9_999)), 1_310);
        assert_eq!(pace(3, 0).next(&End::Elsewhere(0)), 1_011);
    }
}
