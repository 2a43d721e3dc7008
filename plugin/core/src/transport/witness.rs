//! One request settles many messages and is answered for each. What a refusal comes to depends on the others: what is
//! refused to one while it was done to another is that one's own; what is refused to all is nobody's own.

use super::Settled;
use crate::error::{About, Error, Kind, Result};

/// What became of each message. All that are to wait wait for the longest time that was asked for ("JSON batching").
///
/// # Errors
/// The refusal itself when everything was refused, and not for what the messages are: a right, a quota or a folder is missing.
pub fn settled(answers: Vec<Result<Settled>>) -> Result<Vec<Settled>> {
    let was_done = answers.iter().any(|answer| matches!(answer, Ok(Settled::Done)));
    let all_refused = !answers.is_empty() && answers.iter().all(|answer| answer.as_ref().is_err_and(is_of_all));
    if all_refused && let Some(Err(error)) = answers.iter().find(|answer| answer.is_err()) {
        return Err(error.clone());
    }
    let wait = answers.iter().filter_map(|answer| answer.as_ref().err()?.wait()).max();
    let outcome = |answer: Result<Settled>| match answer {
        Ok(settled) => settled,
        Err(error) if is_for_later(&error) => Settled::Later(match (error.kind(), wait) {
            (Kind::Throttled, Some(wait)) => error.retry_after(wait),
            _ => error,
        }),
        Err(error) if was_done || error.is_of_item() => Settled::Kept(error),
        Err(error) => Settled::Later(error),
    };
    Ok(answers.into_iter().map(outcome).collect())
}

/// Whoever is done later is not refused: it passes, or there was no room for it.
fn is_for_later(error: &Error) -> bool {
    error.is_transient()
        || matches!(error.about(), About::Folder | About::Server | About::Connection | About::Host)
        || error.has_code(&["ErrorQuotaExceeded"])
}

fn is_of_all(error: &Error) -> bool {
    !error.is_transient() && !error.is_of_item()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::transport::words;

    fn refused(kind: Kind, about: About) -> Result<Settled> {
        Err(Error::new(kind, "It was refused.").with_about(about))
    }

    #[test]
    fn what_is_done_to_one_and_refused_to_another_is_that_ones_own() {
        let of_mailbox = || refused(Kind::Refused, About::Mailbox);
        let of_item = || refused(Kind::ServerMisbehaved, About::Item);
        let unknown = || refused(Kind::ServerMisbehaved, About::Unknown);
        let busy = || refused(Kind::Throttled, About::Server);
        let of_folder = || refused(Kind::Settings, About::Folder);
        for (answers, expected) in [
            (vec![Ok(Settled::Done), of_mailbox(), unknown(), of_item()], vec!["done", "kept", "kept", "kept"]),
            (vec![Ok(Settled::Done), busy(), of_folder()], vec!["done", "later", "later"]),
            (vec![Ok(Settled::Gone), of_mailbox(), of_item()], vec!["gone", "later", "kept"]),
            (vec![of_item(), of_item()], vec!["kept", "kept"]),
            (vec![busy(), busy()], vec!["later", "later"]),
        ] {
            assert_eq!(words(&settled(answers).unwrap()), expected);
        }
        for of_all in [of_mailbox, of_folder, unknown] as [fn() -> Result<Settled>; 3] {
            assert!(settled(vec![of_all(), of_mailbox()]).is_err());
        }
    }

    #[test]
    fn a_full_mailbox_is_no_messages_own() {
        let full = Error::new(Kind::AdminRequired, "Full.").with_about(About::Mailbox).with_code("ErrorQuotaExceeded");
        assert_eq!(words(&settled(vec![Ok(Settled::Done), Err(full)]).unwrap()), ["done", "later"]);
    }

    #[test]
    fn all_wait_for_the_longest_time() {
        let busy = |seconds| {
            let error = Error::new(Kind::Throttled, "Busy.").with_about(About::Server);
            Err(if seconds == 0 { error } else { error.retry_after(Duration::from_secs(seconds)) })
        };
        let settled = settled(vec![busy(2), Ok(Settled::Done), busy(9), busy(0)]).unwrap();
        let wait = |one: &Settled| match one {
            Settled::Later(error) => error.wait().map(|wait| wait.as_secs()),
            _ => None,
        };
        assert_eq!(settled.iter().map(wait).collect::<Vec<_>>(), [Some(9), None, Some(9), Some(9)]);
    }
}
