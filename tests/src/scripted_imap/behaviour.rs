//! What a scripted server always does, and what it does once.

/// Legal, unless a comment names the server that does it all the same.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// RFC 9738: no command is carried out for more messages than this.
    pub message_limit: Option<usize>,
    /// RFC 9051 alone: no IMAP4rev1 in CAPABILITY, ESEARCH instead of SEARCH.
    pub rev2_only: bool,
    /// A SEARCH ends with OK and without a SEARCH line (illegal; seen in emailjs-imap-client issue 259).
    pub search_says_nothing: bool,
    /// No UIDNEXT when a folder is opened, as 163.com and older Courier.
    pub no_uidnext: bool,
    /// `UID FETCH *` is answered with OK alone, so many times (chatmail/core issue 4562).
    pub empty_fetches_of_last: usize,
    /// MOVE is not offered.
    pub no_move: bool,
    /// MOVE is offered and refused, as by go-imap 1.2.1.
    pub move_refused: bool,
    /// UIDPLUS is not offered.
    pub no_uidplus: bool,
    /// RFC 4314: the right `e` is missing.
    pub expunge_refused: bool,
    /// RFC 4314: the right `t` is missing.
    pub deleted_flag_refused: bool,
    /// Every other folder lies below this one: `INBOX.`, as at Courier and cPanel.
    pub prefix: Option<&'static str>,
    /// Names in LIST are literals.
    pub literal_names: bool,
    /// Every login finds new numbers, as GNU imap4d on an mbox that is only examined.
    pub renumbers_at_login: bool,
    /// `EXAMINE` and `SELECT` say `EXISTS 0` (illegal).
    pub exists_nothing: bool,
    /// A session sees the folder as it was opened, also when others change it meanwhile (RFC 2180 section 4.1.2).
    pub frozen_view: bool,
}

/// What becomes of a message when it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readable {
    #[default]
    Whole,
    /// Exchange's text in its place; RFC822.SIZE is that of the message.
    ExchangeSubstitute,
    /// Courier's text in its place, 129 bytes.
    CourierSubstitute,
    /// The connection ends with BYE when its size is asked for, as by Dovecot with an unreadable file.
    EndsListing,
    /// `NO` whenever its size is asked for; what comes before it is given.
    RefusesListing,
    /// `NO` whenever it is among those whose text is asked for.
    Refused,
    /// OK, and not a word of it.
    LeftOut,
}

/// A command as it came.
pub struct Command<'a> {
    /// Without its tag.
    pub line: &'a str,
    /// In upper case: `EXAMINE`, `UID FETCH`, `LOGOUT`.
    pub verb: &'a str,
    /// How many commands the session had before this one, and how many sessions came before.
    pub place: (u64, u64),
}

/// What becomes of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Obey,
    /// These words instead: `NO [SERVERBUG] …`.
    Refuse(&'static str),
    /// The connection ends; nothing was done.
    HangUp,
    /// It is carried out, and the connection ends before the answer.
    LoseAnswer,
    /// Only so many messages are answered for, and then the words, or the end of the connection.
    Partial(usize, Option<&'static str>),
}
