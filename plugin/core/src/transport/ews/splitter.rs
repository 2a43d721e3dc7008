//! Takes the MIME out of an answer while it comes: the base64 of each `MimeContent` goes decoded to its spool, and its number
//! takes its place in what is left, which is small enough to be parsed as a whole. Nothing large is ever held twice.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{client::misbehaved, lenient::cleaned};
use crate::{
    error::{Error, Kind, Result},
    limits,
    transport::{Raw, spool::Spool},
};

#[derive(Default)]
pub struct Splitter {
    state: State,
    /// The answer without the contents.
    rest: Vec<u8>,
    /// Of the markup that is being read, `<` included.
    tag: Vec<u8>,
    quote: Option<u8>,
    depth: usize,
    content: Option<Content>,
    contents: Vec<Result<Raw>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Markup,
    Content,
}

impl Splitter {
    /// # Errors
    /// `ServerMisbehaved` for markup or an answer beyond its bound; `Transient` when a spool file takes no more.
    pub fn put(&mut self, mut part: &[u8]) -> Result<()> {
        while !part.is_empty() {
            match self.state {
                State::Markup => part = self.markup(part)?,
                state => {
                    let end = memchr::memchr(b'<', part).unwrap_or(part.len());
                    match state {
                        State::Content => {
                            if let Some(content) = &mut self.content {
                                content.put(&part[..end])?;
                            }
                        }
                        _ => self.keep(&part[..end])?,
                    }
                    part = &part[end..];
                    if !part.is_empty() {
                        self.state = State::Markup;
                    }
                }
            }
        }
        Ok(())
    }

    /// What is left, without what XML forbids, and the contents in their order.
    ///
    /// # Errors
    /// `ServerMisbehaved` when it ended in the middle.
    pub fn end(self) -> Result<(String, Vec<Result<Raw>>)> {
        if self.state != State::Text {
            return Err(misbehaved("ended its answer in the middle"));
        }
        // A byte order mark is no part of the document.
        let rest = self.rest.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&self.rest).to_vec();
        Ok((cleaned(rest), self.contents))
    }

    fn markup<'a>(&mut self, part: &'a [u8]) -> Result<&'a [u8]> {
        for (at, &byte) in part.iter().enumerate() {
            if self.tag.len() == limits::EWS_TAG_MAX {
                return Err(misbehaved("sent a tag longer than any real one"));
            }
            self.tag.push(byte);
            let is_end = if self.tag.starts_with(b"<!--") {
                byte == b'>' && self.tag.len() >= 7 && self.tag.ends_with(b"-->")
            } else if self.tag.starts_with(b"<![CDATA[") {
                byte == b'>' && self.tag.ends_with(b"]]>")
            } else {
                match (self.quote, byte) {
                    (Some(quote), _) if byte == quote => self.quote = None,
                    (None, b'"' | b'\'') => self.quote = Some(byte),
                    _ => {}
                }
                byte == b'>' && self.quote.is_none()
            };
            if is_end {
                self.end_markup()?;
                return Ok(&part[at + 1..]);
            }
        }
        Ok(&[])
    }

    fn end_markup(&mut self) -> Result<()> {
        let tag = std::mem::take(&mut self.tag);
        if let Some(content) = self.content.take() {
            self.end_content(content, tag.starts_with(b"</"))?;
        }
        self.keep(&tag)?;
        self.state = State::Text;
        match tag.get(1) {
            Some(b'/') => self.depth = self.depth.saturating_sub(1),
            Some(b'!' | b'?') | None => {}
            Some(_) if tag.ends_with(b"/>") => {}
            Some(_) => {
                self.depth += 1;
                if self.depth > limits::EWS_DEPTH_MAX {
                    return Err(misbehaved("sent an answer that is nested deeper than any real one"));
                }
                if local_name(&tag) == b"MimeContent" {
                    self.content = Some(Content::default());
                    self.state = State::Content;
                }
            }
        }
        self.tag = tag;
        self.tag.clear();
        Ok(())
    }

    /// Markup inside of base64 would cut the message off without anybody seeing it.
    fn end_content(&mut self, mut content: Content, is_whole: bool) -> Result<()> {
        if self.contents.len() == limits::EWS_BATCH {
            return Err(misbehaved("sent more messages than it was asked for"));
        }
        if !is_whole {
            content.failed.get_or_insert_with(|| misbehaved("sent a message with markup in its base64"));
        }
        let number = self.contents.len();
        self.contents.push(content.end()?);
        self.keep(number.to_string().as_bytes())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        if self.rest.len() + bytes.len() > limits::EWS_ANSWER_MAX {
            return Err(misbehaved("sent an answer that is larger than any should be"));
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }
}

/// `MimeContent` of `<t:MimeContent CharacterSet="UTF-8">`.
fn local_name(tag: &[u8]) -> &[u8] {
    let name = &tag[1..];
    let end = name.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'>').unwrap_or(name.len());
    name[..end].rsplit(|byte| *byte == b':').next().unwrap_or_default()
}

/// One message on its way out of base64.
#[derive(Default)]
struct Content {
    pending: Vec<u8>,
    decoded: Vec<u8>,
    spool: Spool,
    /// Padding came: this is the end.
    ended: bool,
    failed: Option<Error>,
}

impl Content {
    fn put(&mut self, text: &[u8]) -> Result<()> {
        for piece in text.chunks(limits::EWS_PIECE) {
            if self.failed.is_some() {
                return Ok(());
            }
            self.pending.extend(piece.iter().filter(|byte| !byte.is_ascii_whitespace()));
            let whole = self.pending.len() / 4 * 4;
            self.decode(whole)?;
        }
        Ok(())
    }

    fn decode(&mut self, whole: usize) -> Result<()> {
        if whole == 0 {
            return Ok(());
        }
        self.decoded.clear();
        let quads = &self.pending[..whole];
        if self.ended || BASE64_STANDARD.decode_vec(quads, &mut self.decoded).is_err() {
            self.failed = Some(misbehaved("sent a message whose base64 is none"));
            return Ok(());
        }
        self.ended = quads.ends_with(b"=");
        self.pending.drain(..whole);
        match self.spool.put(&self.decoded) {
            // Only this message is too large; those beside it are not.
            Err(error) if error.kind() == Kind::TooLarge => {
                self.failed = Some(error);
                Ok(())
            }
            other => other,
        }
    }

    fn end(self) -> Result<Result<Raw>> {
        match self.failed {
            Some(error) => Ok(Err(error)),
            None if !self.pending.is_empty() => Ok(Err(misbehaved("sent a message whose base64 is cut off"))),
            None => self.spool.end().map(Ok),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(parts: &[&[u8]]) -> Result<(String, Vec<Result<Raw>>)> {
        let mut splitter = Splitter::default();
        for part in parts {
            splitter.put(part)?;
        }
        splitter.end()
    }

    fn bytes(raw: &Result<Raw>) -> &[u8] {
        match raw {
            Ok(Raw::Memory(bytes)) => bytes,
            _ => panic!("not in memory"),
        }
    }

    #[test]
    fn contents_come_out_wherever_the_answer_is_cut() {
        let answer = b"<a x='>'><t:MimeContent CharacterSet=\"UTF-8\">SGVs\r\nbG8=</t:MimeContent><b/>\
            <MimeContent>QQ==</MimeContent><MimeContent/></a>";
        for cut in 0..answer.len() {
            let (rest, contents) = split(&[&answer[..cut], &answer[cut..]]).unwrap();
            assert_eq!(contents.iter().map(bytes).collect::<Vec<_>>(), [&b"Hello"[..], b"A"], "{cut}");
            assert_eq!(
                rest,
                "<a x='>'><t:MimeContent CharacterSet=\"UTF-8\">0</t:MimeContent><b/>\
                 <MimeContent>1</MimeContent><MimeContent/></a>"
            );
        }
    }

    #[test]
    fn broken_base64_is_of_one_message_only() {
        for broken in ["QQ", "QQ==QQ==", "Q*==", "&lt;", "QUJD<!-- -->QUJD", "<![CDATA[QUJD]]>"] {
            let answer = format!("<a><MimeContent>{broken}</MimeContent><MimeContent>QUJD</MimeContent></a>");
            let (_, contents) = split(&[answer.as_bytes()]).unwrap();
            assert!(contents[0].is_err(), "{broken}");
            assert_eq!(bytes(&contents[1]), b"ABC");
        }
    }

    #[test]
    fn what_is_too_deep_too_long_or_cut_off_is_refused() {
        let deep = "<a>".repeat(limits::EWS_DEPTH_MAX + 1);
        let long = format!("<a b=\"{}\"/>", "x".repeat(limits::EWS_TAG_MAX));
        for answer in [deep.as_str(), long.as_str(), "<a", "<MimeContent>QQ==", "<!-- -", "\u{fffd}<a b='"] {
            assert_eq!(split(&[answer.as_bytes()]).err().unwrap().kind(), Kind::ServerMisbehaved, "{answer:.20}");
        }
        assert_eq!(split(&[b"<a>\xff</a>"]).unwrap().0, "<a>\u{FFFD}</a>");
        assert!(split(&[b"<!-- <MimeContent> --><![CDATA[<MimeContent>]]>"]).unwrap().1.is_empty());
    }

    /// 30 MB, of which never more is held than two pieces and the room of the spool.
    #[test]
    fn a_large_message_goes_to_a_file_and_is_held_in_pieces() {
        let piece = vec![b'x'; 3 * 8_191];
        let (text, times) = (BASE64_STANDARD.encode(&piece), (30 << 20) / piece.len());
        let mut splitter = Splitter::default();
        splitter.put(b"<a><t:MimeContent>").unwrap();
        for _ in 0..times {
            splitter.put(text.as_bytes()).unwrap();
            let content = splitter.content.as_ref().unwrap();
            let held = splitter.rest.capacity() + content.pending.capacity() + content.decoded.capacity();
            assert!(held <= 3 * limits::EWS_PIECE, "{held}");
        }
        splitter.put(b"</t:MimeContent></a>").unwrap();
        let (rest, mut contents) = splitter.end().unwrap();
        assert_eq!(rest, "<a><t:MimeContent>0</t:MimeContent></a>");
        let Some(Ok(Raw::Spool { len, .. })) = contents.pop() else { panic!("not spooled") };
        assert_eq!(len, (times * piece.len()) as u64);
    }
}
