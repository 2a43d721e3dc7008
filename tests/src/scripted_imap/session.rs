//! One connection: login, commands, answers.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Behaviour, Command, Fate, Folder, Message, Readable, Shared, State};

/// Longer than any command of the product.
const LINE_MAX: u64 = 64 * 1024;

type Stream = BufReader<StreamOwned<ServerConnection, TcpStream>>;

struct Session<'a> {
    stream: Stream,
    shared: &'a Shared,
    /// Name, read-only, and the folder as it was when it was opened.
    selected: Option<(String, bool, Folder)>,
    /// How many sessions came before, and how many commands of this one.
    number: u64,
    commands: u64,
}

/// What a command leads to.
struct Answer {
    untagged: Vec<u8>,
    /// `OK done`.
    status: String,
    /// The connection ends after it, or instead of the status.
    ends: bool,
}

impl Answer {
    fn ok() -> Self {
        Self { untagged: Vec::new(), status: "OK done".to_owned(), ends: false }
    }

    fn status(words: &str) -> Self {
        Self { status: words.to_owned(), ..Self::ok() }
    }

    fn say(&mut self, text: &str) {
        self.untagged.extend_from_slice(text.as_bytes());
    }
}

pub fn serve(tcp: TcpStream, config: Arc<ServerConfig>, shared: &Shared) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(Duration::from_secs(120)))?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let stream = BufReader::new(StreamOwned::new(connection, tcp));
    let number = {
        let mut state = shared.lock();
        state.sessions += 1;
        state.sessions
    };
    Session { stream, shared, selected: None, number, commands: 0 }.run()
}

impl Session<'_> {
    fn run(&mut self) -> io::Result<()> {
        let capabilities = {
            let mut state = self.shared.lock();
            if state.behaviour.renumbers_at_login {
                let names: Vec<String> = state.mailbox.folders.keys().cloned().collect();
                names.iter().for_each(|name| state.mailbox.renumber(name));
            }
            capabilities(&state.behaviour)
        };
        self.say(format!("* OK [CAPABILITY {capabilities}] ready\r\n").as_bytes())?;
        loop {
            let mut line = String::new();
            if (&mut self.stream).take(LINE_MAX).read_line(&mut line)? == 0 {
                return Ok(());
            }
            let (tag, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
            let (tag, rest) = (tag.to_owned(), rest.to_owned());
            let mut words = rest.split(' ').map(str::to_ascii_uppercase);
            let mut verb = words.next().unwrap_or_default();
            if verb == "UID" {
                verb = format!("UID {}", words.next().unwrap_or_default());
            }
            if verb == "AUTHENTICATE" && rest.split(' ').count() < 3 {
                self.say(b"+ \r\n")?;
                (&mut self.stream).take(LINE_MAX).read_line(&mut String::new())?;
            }
            let answer = self.answer(&tag, &rest, &verb, &capabilities);
            self.say(&answer.untagged)?;
            if answer.ends {
                return Ok(());
            }
            self.say(format!("{tag} {}\r\n", answer.status).as_bytes())?;
            if verb == "LOGOUT" {
                return Ok(());
            }
        }
    }

    fn answer(&mut self, tag: &str, line: &str, verb: &str, capabilities: &str) -> Answer {
        let shared = self.shared;
        let mut state = shared.lock();
        if ["AUTHENTICATE", "CAPABILITY", "ID", "LOGOUT"].contains(&verb) {
            let mut answer = Answer::ok();
            if verb == "CAPABILITY" {
                answer.say(&format!("* CAPABILITY {capabilities}\r\n"));
            }
            return answer;
        }
        let fate = state.note(&Command { line, verb, place: (self.number, self.commands) });
        self.commands += 1;
        let mut answer = match fate {
            Fate::Refuse(words) => return Answer::status(words),
            Fate::HangUp => return Answer { ends: true, ..Answer::ok() },
            Fate::Obey | Fate::LoseAnswer => self.obey(&mut state, tag, line, verb, None),
            Fate::Partial(count, words) => {
                let mut answer = self.obey(&mut state, tag, line, verb, Some(count));
                match words {
                    Some(words) => answer.status = words.to_owned(),
                    None => answer.ends = true,
                }
                answer
            }
        };
        if fate == Fate::LoseAnswer {
            answer = Answer { ends: true, ..Answer::ok() };
        }
        answer
    }

    /// `part`: only so many messages are answered for.
    fn obey(&mut self, state: &mut State, tag: &str, line: &str, verb: &str, part: Option<usize>) -> Answer {
        let arguments: Vec<&str> = line.split(' ').skip(verb.split(' ').count()).collect();
        match verb {
            "EXAMINE" | "SELECT" => self.open(state, &arguments.join(" "), verb == "EXAMINE"),
            "FETCH" | "UID FETCH" => self.fetch(state, verb == "UID FETCH", &arguments, part),
            "UID SEARCH" => self.search(state, tag, &arguments, part),
            "UID STORE" | "UID COPY" | "UID MOVE" | "UID EXPUNGE" => self.change(state, verb, &arguments, part),
            "CREATE" => create(state, &unquoted(&arguments.join(" "))),
            "LIST" => list(state, &unquoted(arguments.last().copied().unwrap_or_default())),
            "NAMESPACE" => {
                let mut answer = Answer::ok();
                let prefix = state.behaviour.prefix.unwrap_or_default();
                let separator = if prefix.ends_with('.') { "." } else { "/" };
                answer.say(&format!("* NAMESPACE ((\"{prefix}\" \"{separator}\")) NIL NIL\r\n"));
                answer
            }
            "STATUS" => {
                let quoted = line.split_once(' ').map_or("", |(_, rest)| rest);
                let name = unquoted(quoted.split_once(" (").map_or(quoted, |(name, _)| name));
                match state.mailbox.folders.get(&name) {
                    None => Answer::status("NO [NONEXISTENT] no such folder"),
                    Some(folder) => {
                        let mut answer = Answer::ok();
                        let (count, next, validity) = (folder.messages.len(), folder.uidnext, folder.uidvalidity);
                        answer.say(&format!(
                            "* STATUS \"{name}\" (MESSAGES {count} UIDNEXT {next} UIDVALIDITY {validity})\r\n"
                        ));
                        answer
                    }
                }
            }
            "NOOP" | "CHECK" | "ENABLE" => Answer::ok(),
            _ => Answer::status("BAD unknown command"),
        }
    }

    fn open(&mut self, state: &mut State, name: &str, read_only: bool) -> Answer {
        self.selected = None;
        let name = unquoted(name);
        let name = if name.eq_ignore_ascii_case("INBOX") { "INBOX".to_owned() } else { name };
        let Some(folder) = state.mailbox.folders.get(&name) else {
            return Answer::status("NO [NONEXISTENT] no such folder");
        };
        let exists = if state.behaviour.exists_nothing { 0 } else { folder.messages.len() };
        let mut answer = Answer::ok();
        answer.say("* FLAGS (\\Seen \\Deleted \\Answered \\Flagged)\r\n");
        answer.say(&format!("* {exists} EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY {}] x\r\n", folder.uidvalidity));
        if !state.behaviour.no_uidnext {
            answer.say(&format!("* OK [UIDNEXT {}] x\r\n", folder.uidnext));
        }
        answer.status = format!("OK [READ-{}] done", if read_only { "ONLY" } else { "WRITE" });
        self.selected = Some((name, read_only, folder.clone()));
        answer
    }

    fn fetch(&self, state: &mut State, by_uid: bool, arguments: &[&str], part: Option<usize>) -> Answer {
        let Some((name, _, opened)) = &self.selected else { return Answer::status("BAD no folder is selected") };
        let set = arguments.first().copied().unwrap_or_default();
        if set == "*" && state.behaviour.empty_fetches_of_last > 0 {
            state.behaviour.empty_fetches_of_last -= 1;
            return Answer::ok();
        }
        let live = state.mailbox.folders.get(name);
        let folder = if state.behaviour.frozen_view { opened } else { live.unwrap_or(opened) };
        let items = arguments[1..].join(" ").to_ascii_uppercase();
        let (wants_text, wants_size) = (items.contains("BODY.PEEK["), items.contains("RFC822.SIZE"));
        let last = folder.messages.last().map_or(0, |message| message.uid);
        let count = folder.messages.len() as u64;
        let asked = |(sequence, message): &(usize, &Message)| {
            let number = if by_uid { message.uid } else { *sequence as u64 };
            contains(set, number, if by_uid { last } else { count })
        };
        let mut wanted: Vec<(usize, &Message)> = (1..).zip(&folder.messages).filter(asked).collect();
        let mut answer = Answer::ok();
        let limit = state.behaviour.message_limit.filter(|limit| wanted.len() > *limit);
        if let Some(limit) = limit {
            // RFC 9738 section 3.1: the highest ones are answered for, and the lowest of them is named.
            wanted = wanted.split_off(wanted.len() - limit);
            answer.status = limited(limit, wanted.first().map(|(_, message)| message.uid));
        }
        wanted.truncate(part.unwrap_or(usize::MAX));
        if wants_text && wanted.iter().any(|(_, message)| message.readable == Readable::Refused) {
            return Answer::status("NO [SERVERBUG] one of them cannot be read");
        }
        for (sequence, message) in wanted {
            let Message { uid, readable, .. } = message;
            match readable {
                Readable::EndsListing if wants_size => {
                    answer.say("* BYE FETCH failed: Internal error occurred.\r\n");
                    return Answer { ends: true, ..answer };
                }
                Readable::RefusesListing if wants_size => {
                    answer.status = "NO The requested message could not be converted".to_owned();
                    return answer;
                }
                Readable::EndsListing | Readable::RefusesListing if wants_text => {
                    return Answer::status("NO [SERVERBUG] it cannot be read");
                }
                Readable::LeftOut if wants_text => continue,
                _ => {}
            }
            answer.say(&format!("* {sequence} FETCH (UID {uid}"));
            if wants_size {
                let size = match readable {
                    Readable::CourierSubstitute => message.given(sequence).len(),
                    _ => message.raw.len(),
                };
                answer.say(&format!(" RFC822.SIZE {size}"));
            }
            if items.contains("INTERNALDATE") {
                answer.say(&format!(" INTERNALDATE \"{}\"", message.internal_date()));
            }
            if items.contains("FLAGS") {
                let flags: Vec<&str> = message.flags.iter().map(String::as_str).collect();
                answer.say(&format!(" FLAGS ({})", flags.join(" ")));
            }
            if wants_text {
                let given = text(&items, &message.given(sequence));
                let section = items.split_once("BODY.PEEK").map_or("[]", |(_, rest)| rest);
                let section = section.split_once(']').map_or("[]", |(section, _)| section);
                answer.say(&format!(" BODY{}] {{{}}}\r\n", section.trim_end_matches(']'), given.len()));
                answer.untagged.extend_from_slice(&given);
            }
            answer.say(")\r\n");
        }
        answer
    }

    fn search(&self, state: &mut State, tag: &str, arguments: &[&str], part: Option<usize>) -> Answer {
        let Some((name, _, opened)) = &self.selected else { return Answer::status("BAD no folder is selected") };
        if state.behaviour.search_says_nothing {
            return Answer::ok();
        }
        let folder = state.mailbox.folders.get(name).unwrap_or(opened);
        let last = folder.messages.last().map_or(0, |message| message.uid);
        let mut words = arguments.iter().copied().peekable();
        let mut esearch = state.behaviour.rev2_only;
        if words.peek().is_some_and(|word| word.eq_ignore_ascii_case("RETURN")) {
            esearch = true;
            for word in words.by_ref() {
                if word.ends_with(')') {
                    break;
                }
            }
        }
        let words: Vec<&str> = words.collect();
        let mut found: Vec<&Message> = folder.messages.iter().filter(|message| fits(&words, message, last)).collect();
        let mut answer = Answer::ok();
        if let Some(limit) = state.behaviour.message_limit.filter(|limit| found.len() > *limit) {
            found = found.split_off(found.len() - limit);
            answer.status = limited(limit, found.first().map(|message| message.uid));
        }
        found.truncate(part.unwrap_or(usize::MAX));
        let uids: Vec<String> = found.iter().map(|message| message.uid.to_string()).collect();
        if esearch {
            let all = if uids.is_empty() { String::new() } else { format!(" ALL {}", uids.join(",")) };
            answer.say(&format!("* ESEARCH (TAG \"{tag}\") UID{all}\r\n"));
        } else {
            let list: String = uids.iter().map(|uid| format!(" {uid}")).collect();
            answer.say(&format!("* SEARCH{list}\r\n"));
        }
        answer
    }

    fn change(&self, state: &mut State, verb: &str, arguments: &[&str], part: Option<usize>) -> Answer {
        let Some((name, read_only, _)) = &self.selected else { return Answer::status("BAD no folder is selected") };
        if *read_only {
            return Answer::status("NO the folder is read-only");
        }
        let State { mailbox, behaviour, .. } = state;
        let set = arguments.first().copied().unwrap_or_default();
        let rest = arguments.get(1..).unwrap_or_default().join(" ");
        let target = unquoted(&rest);
        match verb {
            "UID MOVE" if behaviour.move_refused => return Answer::status("NO MOVE extension not supported"),
            "UID MOVE" if behaviour.no_move => return Answer::status("BAD unknown command"),
            "UID EXPUNGE" if behaviour.no_uidplus => return Answer::status("BAD unknown command"),
            "UID EXPUNGE" if behaviour.expunge_refused => {
                return Answer::status("NO [NOPERM] Access denied for EXPUNGE on current mailbox (ACL \"e\" required)");
            }
            "UID STORE" if behaviour.deleted_flag_refused && rest.contains("\\Deleted") => {
                return Answer::status("NO [NOPERM] Access denied for STORE (ACL \"t\" required)");
            }
            "UID MOVE" | "UID COPY" if !mailbox.folders.contains_key(&target) => {
                let words = match behaviour.prefix {
                    Some(prefix) if !target.starts_with(prefix) => {
                        "NO Client tried to access nonexistent namespace. (Mailbox name should probably be prefixed.)"
                    }
                    _ => "NO [TRYCREATE] no such folder",
                };
                return Answer::status(words);
            }
            _ => {}
        }
        let Some(folder) = mailbox.folders.get_mut(name) else { return Answer::status("NO [NONEXISTENT] gone") };
        let last = folder.messages.last().map_or(0, |message| message.uid);
        let mut uids: Vec<u64> =
            folder.messages.iter().map(|message| message.uid).filter(|uid| contains(set, *uid, last)).collect();
        let mut answer = Answer::ok();
        if let Some(limit) = behaviour.message_limit.filter(|limit| uids.len() > *limit) {
            uids = uids.split_off(uids.len() - limit);
            answer.status = limited(limit, uids.first().copied());
        }
        uids.truncate(part.unwrap_or(usize::MAX));
        let mut moved = Vec::new();
        for uid in uids {
            match verb {
                "UID STORE" => {
                    if let Some(message) = folder.message(uid) {
                        let flags = rest.split_once('(').map_or("", |(_, flags)| flags).trim_end_matches(')');
                        message.flags.extend(flags.split(' ').map(str::to_owned));
                    }
                }
                "UID EXPUNGE" => {
                    if folder.message(uid).is_some_and(|message| message.has("\\Deleted")) {
                        folder.remove(uid);
                    }
                }
                "UID MOVE" => moved.extend(folder.remove(uid)),
                _ => moved.extend(folder.message(uid).map(|message| message.clone())),
            }
        }
        let target = mailbox.folder(&target_or(&target, name, &moved));
        for message in moved {
            target.put(message);
        }
        answer
    }

    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        let out = self.stream.get_mut();
        out.write_all(bytes)?;
        out.flush()
    }
}

/// Nothing moved: any folder that is there.
fn target_or(target: &str, name: &str, moved: &[Message]) -> String {
    if moved.is_empty() { name.to_owned() } else { target.to_owned() }
}

fn capabilities(behaviour: &Behaviour) -> String {
    let mut list = vec![if behaviour.rev2_only { "IMAP4rev2" } else { "IMAP4rev1" }.to_owned()];
    list.extend(["SASL-IR", "AUTH=XOAUTH2", "NAMESPACE"].map(str::to_owned));
    if !behaviour.rev2_only && !behaviour.no_uidplus {
        list.push("UIDPLUS".to_owned());
    }
    if !behaviour.rev2_only && !behaviour.no_move {
        list.push("MOVE".to_owned());
    }
    list.extend(behaviour.message_limit.map(|limit| format!("MESSAGELIMIT={limit}")));
    list.join(" ")
}

fn limited(limit: usize, lowest: Option<u64>) -> String {
    format!("OK [MESSAGELIMIT {limit} {}] only the newest", lowest.unwrap_or_default())
}

fn create(state: &mut State, name: &str) -> Answer {
    if state.behaviour.prefix.is_some_and(|prefix| !name.starts_with(prefix)) {
        return Answer::status("NO Client tried to access nonexistent namespace.");
    }
    match state.mailbox.create(name) {
        true => Answer::ok(),
        false => Answer::status("NO [ALREADYEXISTS] it is there"),
    }
}

fn list(state: &State, pattern: &str) -> Answer {
    let mut answer = Answer::ok();
    let prefix = state.behaviour.prefix.unwrap_or("/");
    let separator = if prefix.ends_with('.') { '.' } else { '/' };
    let named = |name: &str| pattern == "*" || pattern == "%" || pattern == name;
    for (name, folder) in state.mailbox.folders.iter().filter(|(name, _)| named(name)) {
        let attributes = ["\\HasNoChildren", folder.attributes].join(" ");
        answer.say(&format!("* LIST ({}) \"{separator}\" ", attributes.trim_end()));
        match state.behaviour.literal_names {
            true => answer.say(&format!("{{{}}}\r\n{name}\r\n", name.len())),
            false => answer.say(&format!("\"{}\"\r\n", name.replace('\\', "\\\\").replace('"', "\\\""))),
        }
    }
    answer
}

/// `1,3:5,8:*`. As the standard has it, `n:*` names the last message also when its number is below n.
fn contains(set: &str, number: u64, last: u64) -> bool {
    let read = |text: &str| if text == "*" { Some(last) } else { text.parse().ok() };
    set.split(',').any(|part| {
        let (first, end) = part.split_once(':').unwrap_or((part, part));
        let (Some(first), Some(end)) = (read(first), read(end)) else { return false };
        (first.min(end)..=first.max(end)).contains(&number)
    })
}

fn fits(words: &[&str], message: &Message, last: u64) -> bool {
    let format = time::macros::format_description!("[day padding:none]-[month repr:short]-[year]");
    let day = |text: &str| time::Date::parse(text.trim_matches('"'), format).ok();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let fits = match word.to_ascii_uppercase().as_str() {
            "UID" => contains(words.next().copied().unwrap_or_default(), message.uid, last),
            "SINCE" => words.next().and_then(|text| day(text)).is_some_and(|day| message.day() >= day),
            "BEFORE" => words.next().and_then(|text| day(text)).is_some_and(|day| message.day() < day),
            "UNDELETED" => !message.has("\\Deleted"),
            "DELETED" => message.has("\\Deleted"),
            "ALL" => true,
            "HEADER" => {
                let (_, value) = (words.next(), words.next().map_or("", |value| value.trim_matches('"')));
                String::from_utf8_lossy(&message.raw).contains(value)
            }
            // A set of sequence numbers is not asked for by the product.
            _ => true,
        };
        if !fits {
            return false;
        }
    }
    true
}

/// The whole message, its header, or some fields of it.
fn text(items: &str, raw: &[u8]) -> Vec<u8> {
    let end = raw.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(raw.len(), |at| at + 4);
    let section = items.split_once("BODY.PEEK[").map_or("", |(_, rest)| rest);
    let Some((_, rest)) = section.split_once("HEADER.FIELDS (") else {
        return if section.starts_with("HEADER") { raw[..end].to_vec() } else { raw.to_vec() };
    };
    let names: BTreeSet<&str> = rest.split(')').next().unwrap_or_default().split(' ').collect();
    let mut kept = Vec::new();
    let mut keeps = false;
    for line in raw[..end].split_inclusive(|byte| *byte == b'\n') {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = String::from_utf8_lossy(line).split(':').next().unwrap_or_default().to_ascii_uppercase();
            keeps = names.contains(name.as_str());
        }
        if keeps {
            kept.extend_from_slice(line);
        }
    }
    kept.extend_from_slice(b"\r\n");
    kept
}

/// A quoted string, or an atom.
fn unquoted(text: &str) -> String {
    let text = text.trim();
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => text.to_owned(),
    }
}
