//! IMAP4rev1 (RFC 3501) with SASL-IR, UIDPLUS, MOVE, SPECIAL-USE, UNSELECT, ID and NAMESPACE.
//!
//! `imap-codec` reads the commands; the answers are lines of our own, so that faults can spoil them.

mod fetch;
mod search;
mod session;

use std::io::{self, Read, Write};

use imap_codec::{
    AuthenticateDataCodec, CommandCodec,
    fragmentizer::{FragmentInfo, Fragmentizer},
    imap_types::{
        IntoStatic,
        auth::{AuthMechanism, AuthenticateData},
        command::{Command, CommandBody},
        core::{LiteralMode, Tag},
    },
};

use crate::{
    faults::Face,
    sasl,
    state::{Audience, State},
};
use session::Session;

const CAPABILITIES: &str =
    "IMAP4rev1 SASL-IR AUTH=XOAUTH2 AUTH=OAUTHBEARER LITERAL+ UIDPLUS MOVE SPECIAL-USE UNSELECT ID NAMESPACE CHILDREN";

/// What was agreed in AUTHENTICATE, and what comes next.
enum Expect {
    Command,
    /// The client's SASL answer.
    Sasl(Tag<'static>, AuthMechanism<'static>),
    /// The empty answer to a refusal's details (RFC 7628 section 3.2.3).
    Acknowledgement(Tag<'static>),
}

pub fn serve(state: &State, stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut session = Session::new(state);
    let mut fragments = Fragmentizer::new(state.config.message_size_max as u32 + (64 << 10));
    let mut expect = Expect::Command;
    say(stream, &format!("* OK [CAPABILITY {CAPABILITIES}] oauth-mail-sandbox is ready\r\n"))?;
    loop {
        let Some(fragment) = fragments.progress() else {
            let mut piece = [0; 16 << 10];
            let count = stream.read(&mut piece)?;
            if count == 0 {
                return Ok(());
            }
            fragments.enqueue_bytes(&piece[..count]);
            continue;
        };
        if let FragmentInfo::Line { announcement: Some(announcement), .. } = fragment
            && announcement.mode == LiteralMode::Sync
        {
            say(stream, "+ go on\r\n")?;
        }
        if !fragments.is_message_complete() {
            continue;
        }
        expect = match expect {
            Expect::Command => match fragments.decode_message(&CommandCodec::default()) {
                Ok(command) => {
                    let command = command.into_static();
                    if !answer(state, &mut session, stream, command, &mut expect)? {
                        return Ok(());
                    }
                    expect
                }
                Err(_) => {
                    let tag = fragments.decode_tag().map_or("*".into(), |tag| tag.as_ref().to_owned());
                    say(stream, &format!("{tag} BAD this command is not understood\r\n"))?;
                    Expect::Command
                }
            },
            Expect::Sasl(tag, mechanism) => match fragments.decode_message(&AuthenticateDataCodec::default()) {
                Ok(AuthenticateData::Continue(data)) => {
                    let data = data.declassify().to_vec();
                    authenticate(state, &mut session, stream, tag, &mechanism, &data)?
                }
                _ => {
                    say(stream, &format!("{} BAD AUTHENTICATE cancelled\r\n", tag.as_ref()))?;
                    Expect::Command
                }
            },
            Expect::Acknowledgement(tag) => {
                say(stream, &format!("{} NO [AUTHENTICATIONFAILED] AUTHENTICATE failed.\r\n", tag.as_ref()))?;
                Expect::Command
            }
        };
    }
}

/// `false` ends the connection.
fn answer(
    state: &State,
    session: &mut Session<'_>,
    stream: &mut impl Write,
    command: Command<'static>,
    expect: &mut Expect,
) -> io::Result<bool> {
    let Command { tag, body } = command;
    let line = format!("{}{}", if is_uid(&body) { "UID " } else { "" }, body.name());
    state.faults.count(Face::Imap, &line, 0);
    let plan = state.faults.take(Face::Imap, &line).unwrap_or_default();
    std::thread::sleep(plan.delay);
    if plan.refuses() {
        say(stream, &format!("{} NO [UNAVAILABLE] A fault that was ordered.\r\n", tag.as_ref()))?;
        return Ok(true);
    }
    let is_end = matches!(body, CommandBody::Logout);
    if let CommandBody::Authenticate { mechanism, initial_response } = body {
        *expect = match initial_response {
            Some(data) => authenticate(state, session, stream, tag, &mechanism, data.declassify())?,
            None => {
                say(stream, "+ \r\n")?;
                Expect::Sasl(tag, mechanism)
            }
        };
        return Ok(true);
    }
    *expect = Expect::Command;
    let mut output = session.run(tag.as_ref(), body);
    if plan.malformed {
        output = b"* (((\0 FETCH {9999999999}\r\n".to_vec();
    }
    let kept = output.len().min(plan.cut_after.unwrap_or(usize::MAX));
    state.faults.sent(Face::Imap, kept);
    stream.write_all(&output[..kept])?;
    stream.flush()?;
    Ok(!is_end && plan.cut_after.is_none())
}

fn authenticate(
    state: &State,
    session: &mut Session<'_>,
    stream: &mut impl Write,
    tag: Tag<'static>,
    mechanism: &AuthMechanism<'_>,
    data: &[u8],
) -> io::Result<Expect> {
    let tag_text = tag.as_ref().to_owned();
    if !matches!(mechanism, AuthMechanism::XOAuth2 | AuthMechanism::OAuthBearer) {
        say(stream, &format!("{tag_text} NO [CANNOT] only XOAUTH2 and OAUTHBEARER\r\n"))?;
        return Ok(Expect::Command);
    }
    match sasl::login(state, data, Audience::Outlook, &["IMAP.AccessAsUser.All", "IMAP.AccessAsApp"]) {
        Ok(mailbox) => {
            session.enter(mailbox);
            say(stream, &format!("{tag_text} OK [CAPABILITY {CAPABILITIES}] AUTHENTICATE completed.\r\n"))?;
            Ok(Expect::Command)
        }
        Err(details) => {
            say(stream, &format!("+ {details}\r\n"))?;
            Ok(Expect::Acknowledgement(tag))
        }
    }
}

fn is_uid(body: &CommandBody<'_>) -> bool {
    matches!(
        body,
        CommandBody::Fetch { uid: true, .. }
            | CommandBody::Search { uid: true, .. }
            | CommandBody::Store { uid: true, .. }
            | CommandBody::Copy { uid: true, .. }
            | CommandBody::Move { uid: true, .. }
    )
}

fn say(stream: &mut impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}
