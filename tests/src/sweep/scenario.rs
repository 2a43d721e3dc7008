//! What a host does while it is stopped: each is run once undisturbed, and then once for each of its steps.

use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub task: Task,
    pub server: Server,
    /// In each folder.
    pub messages: usize,
    pub folders: usize,
    pub after_import: &'static str,
    pub after_refusal: &'static str,
    pub verdicts: Verdicts,
    pub max_messages: usize,
    /// The last message is larger than what is kept in memory.
    pub large: bool,
    /// Folder names that have to be encoded.
    pub odd_names: bool,
    pub since: &'static str,
    pub before: Before,
    /// The access token has expired when the host begins.
    pub expired: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Fetch,
    Send(Submission),
    Consent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submission {
    Smtps,
    Starttls,
    Raw,
    /// The first server is down.
    Alternate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Full,
    /// Neither MOVE nor UIDPLUS.
    Old,
    /// EWS of the sandbox.
    Ews,
    /// Microsoft Graph of the sandbox.
    Graph,
}

impl Server {
    pub const ALL: [Self; 4] = [Self::Full, Self::Old, Self::Ews, Self::Graph];
}

/// What the host says of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdicts {
    Imported,
    Refused,
    /// Imported, refused and, the first time, retry in turn.
    Mixed,
    /// One of three always fails, until it is put aside.
    Failing,
}

/// What happened before the host begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Nothing,
    /// It looked once, into empty folders.
    Looked,
    /// It settled half; then the folder was made anew, with all the mail under new numbers.
    Renumbered,
    /// It settled half; then some of the rest was expunged by somebody else, and more came.
    Expunged,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "",
            task: Task::Fetch,
            server: Server::Full,
            messages: 4,
            folders: 1,
            after_import: "leave",
            after_refusal: "leave",
            verdicts: Verdicts::Imported,
            max_messages: 500,
            large: false,
            odd_names: false,
            since: "all",
            before: Before::Nothing,
            expired: false,
        }
    }
}

impl Scenario {
    /// `name`: of a fetched folder, its number added.
    pub fn folder(&self, case: &str, number: usize) -> String {
        if self.odd_names { format!("{case}/Entwürfe & {number}") } else { format!("{case}-{number}") }
    }

    pub fn processed(&self, case: &str) -> String {
        if self.odd_names { format!("{case}/Übernommen") } else { format!("{case}-done") }
    }

    pub fn refused(&self, case: &str) -> String {
        format!("{case}-refused")
    }

    /// What is put into `advanced` of the incoming form.
    pub fn advanced(&self, case: &str) -> Value {
        let folders: Vec<_> = (0..self.folders).map(|number| self.folder(case, number)).collect();
        let mut advanced = json!({
            "folders": folders,
            "fetch_since": self.since,
            "after_import": self.after_import,
            "after_refusal": self.after_refusal,
        });
        if self.after_import == "move" {
            advanced["processed_folder"] = json!(self.processed(case));
        }
        if self.after_refusal == "move" {
            advanced["error_folder"] = json!(self.refused(case));
        }
        advanced
    }

    /// Those in which all is said that is said over IMAP and SMTP; what is sent there is seen byte by byte.
    pub fn for_sent() -> Vec<Self> {
        Self::with_three_messages(&["mixed, seen and moved", "send, SMTPS", "send, STARTTLS"])
    }

    /// The same and over HTTP, of which the bodies of the answers are seen.
    pub fn for_received() -> Vec<Self> {
        let http = ["EWS, mixed, seen and moved", "EWS, send", "Graph, mixed, seen and moved", "Graph, send"];
        Self::for_sent().into_iter().chain(Self::with_three_messages(&http)).collect()
    }

    fn with_three_messages(named: &[&str]) -> Vec<Self> {
        let mut chosen: Vec<_> = Self::all().into_iter().filter(|scenario| named.contains(&scenario.name)).collect();
        chosen.iter_mut().for_each(|scenario| scenario.messages = scenario.messages.min(3));
        chosen
    }

    /// At least 24.
    pub fn all() -> Vec<Self> {
        let base = Self::default;
        let old = |name, after_import| Self { name, after_import, server: Server::Old, ..base() };
        let over = |server, names: [&'static str; 3]| {
            let [mixed, spooled, send] = names;
            let base = || Self { server, ..base() };
            [
                Self {
                    name: mixed,
                    after_import: "mark_seen",
                    after_refusal: "move",
                    verdicts: Verdicts::Mixed,
                    ..base()
                },
                Self { name: spooled, large: true, messages: 2, after_import: "delete", ..base() },
                Self { name: send, task: Task::Send(Submission::Raw), ..base() },
            ]
        };
        let send = |name, how| Self { name, task: Task::Send(how), ..base() };
        let mut all = vec![
            Self { name: "leave", ..base() },
            Self { name: "mark seen", after_import: "mark_seen", ..base() },
            Self { name: "move", after_import: "move", ..base() },
            Self { name: "delete", after_import: "delete", ..base() },
            old("mark seen, old server", "mark_seen"),
            old("move, old server", "move"),
            old("delete, old server", "delete"),
            Self { name: "one by one", after_import: "move", max_messages: 1, messages: 3, ..base() },
            Self { name: "three folders", after_import: "move", folders: 3, messages: 2, ..base() },
            Self { name: "odd folder names", after_import: "move", odd_names: true, messages: 2, ..base() },
            Self { name: "refused, left", verdicts: Verdicts::Refused, ..base() },
            Self { name: "refused, moved", after_refusal: "move", verdicts: Verdicts::Refused, ..base() },
            Self { name: "refused, deleted", after_refusal: "delete", verdicts: Verdicts::Refused, ..base() },
            Self { name: "mixed, left", verdicts: Verdicts::Mixed, messages: 6, ..base() },
            Self {
                name: "mixed, seen and moved",
                after_import: "mark_seen",
                after_refusal: "move",
                verdicts: Verdicts::Mixed,
                messages: 6,
                ..base()
            },
            Self {
                name: "mixed, moved and deleted, two folders",
                after_import: "move",
                after_refusal: "delete",
                verdicts: Verdicts::Mixed,
                messages: 3,
                folders: 2,
                ..base()
            },
            Self {
                name: "failing, put aside",
                after_import: "mark_seen",
                after_refusal: "move",
                verdicts: Verdicts::Failing,
                messages: 3,
                ..base()
            },
            Self { name: "from now on", since: "now", before: Before::Looked, after_import: "move", ..base() },
            Self { name: "folder made anew, left", before: Before::Renumbered, ..base() },
            Self { name: "folder made anew, moved", before: Before::Renumbered, after_import: "move", ..base() },
            Self { name: "expunged by another, left", before: Before::Expunged, ..base() },
            Self { name: "expunged by another, deleted", before: Before::Expunged, after_import: "delete", ..base() },
            Self { name: "spooled", large: true, messages: 2, after_import: "mark_seen", ..base() },
            Self { name: "token expired", expired: true, after_import: "move", messages: 2, ..base() },
            Self { name: "consent", task: Task::Consent, messages: 2, ..base() },
            send("send, SMTPS", Submission::Smtps),
            send("send, STARTTLS", Submission::Starttls),
            send("send, raw", Submission::Raw),
            send("send, alternate server", Submission::Alternate),
        ];
        all.extend(over(Server::Ews, ["EWS, mixed, seen and moved", "EWS, spooled and deleted", "EWS, send"]));
        all.extend(over(Server::Graph, ["Graph, mixed, seen and moved", "Graph, spooled and deleted", "Graph, send"]));
        all
    }
}
