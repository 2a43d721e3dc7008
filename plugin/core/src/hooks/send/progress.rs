//! How far a call has come, for the caller that cannot wait for its end.

use std::sync::{Arc, Mutex};

use super::outcome::describe;
use crate::{
    error::{Error, Kind, Result},
    seam,
    transport::Outcome,
};

#[derive(Clone, Default)]
pub struct Progress(Arc<Mutex<Stage>>);

#[derive(Default)]
enum Stage {
    #[default]
    NothingOffered,
    /// The caller was told that nothing was sent, so nothing will be.
    Abandoned,
    Offered {
        message_id: String,
    },
    Answered(String),
}

impl Progress {
    /// What the host is told when the call ended with `error`.
    ///
    /// # Errors
    /// `error`, when nothing was offered to a server.
    pub fn answer_to(&self, error: Error) -> Result<String> {
        let mut stage = seam::lock("send.progress", &self.0);
        match &*stage {
            Stage::NothingOffered | Stage::Abandoned => {
                *stage = Stage::Abandoned;
                Err(error)
            }
            Stage::Answered(answer) => Ok(answer.clone()),
            Stage::Offered { message_id } => {
                let unknown =
                    Error::new(Kind::Transient, "The call ended before the server said whether it took the message.")
                        .remedy("Look for its Message-ID in the sent folder before it is sent again.")
                        .source_error(error);
                Ok(describe(&Outcome::Unknown(unknown), message_id).to_string())
            }
        }
    }

    /// The message is about to be offered to a server.
    ///
    /// # Errors
    /// `Transient` when the caller has been told already that nothing was sent.
    pub fn offer(&self, message_id: &str) -> Result<()> {
        let mut stage = seam::lock("send.progress", &self.0);
        if let Stage::Abandoned = *stage {
            return Err(Error::new(Kind::Transient, "The caller did not wait for the message to be offered."));
        }
        *stage = Stage::Offered { message_id: message_id.to_owned() };
        Ok(())
    }

    /// What was offered last came to nothing.
    pub fn is_nothing(&self) {
        *seam::lock("send.progress", &self.0) = Stage::NothingOffered;
    }

    pub fn is_answered(&self, answer: &str) {
        *seam::lock("send.progress", &self.0) = Stage::Answered(answer.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_call_that_ends_early_says_how_far_it_came_and_comes_no_further() {
        let late = || Error::new(Kind::Transient, "late");
        let progress = Progress::default();
        assert_eq!(progress.answer_to(late()).unwrap_err().message(), "late");
        progress.offer("<1@b.test>").unwrap_err();
        let progress = Progress::default();
        progress.offer("<1@b.test>").unwrap();
        let unknown: Value = serde_json::from_str(&progress.answer_to(late()).unwrap()).unwrap();
        assert_eq!((&unknown["outcome"], &unknown["message_id"]), (&json!("unknown"), &json!("<1@b.test>")));
        assert_eq!(unknown["error"]["chain"][0], "late");
        progress.is_answered("{}");
        assert_eq!(progress.answer_to(late()).unwrap(), "{}");
    }
}
