//! Deterministic mail: the same bytes for the same seed and number, everywhere.
//!
//! What helpdesks get: short texts, HTML with its text twin, attachments, several alphabets, threads. Sizes spread
//! around a mean as real ones do: many small, few large.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};

const WORDS: [&str; 24] = [
    "printer", "ticket", "please", "server", "since", "Monday", "cannot", "login", "again", "attached", "regards",
    "office", "update", "error", "screen", "password", "thanks", "order", "number", "meeting", "invoice", "laptop",
    "restart", "Grüße",
];
const NAMES: [&str; 8] = ["Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Tony", "Margaret"];

pub struct Generator {
    seed: u64,
    mean_kb: usize,
}

impl Generator {
    /// `mean_kb`: mean size of a message in KB, 1 or more.
    pub fn new(seed: u64, mean_kb: usize) -> Self {
        Self { seed, mean_kb: mean_kb.max(1) }
    }

    pub fn message_id(&self, number: usize) -> String {
        format!("m{number}.{:x}@outside.test", self.seed)
    }

    pub fn subject(&self, number: usize) -> String {
        format!("Request {number}: {} {}", WORDS[number % WORDS.len()], WORDS[(number / 7) % WORDS.len()])
    }

    /// A whole message, CRLF line ends.
    pub fn message(&self, number: usize) -> Vec<u8> {
        let mut random = Random::new(self.seed, number);
        let mut out = self.header(number, &mut random);
        let size = self.size(&mut random);
        match number % 8 {
            0..=2 => text_part(&mut out, &mut random, size),
            3 | 4 => alternative(&mut out, &mut random, size),
            5 | 6 => with_attachment(&mut out, &mut random, size),
            _ => eight_bit(&mut out, &mut random, size),
        }
        out
    }

    fn header(&self, number: usize, random: &mut Random) -> Vec<u8> {
        let name = NAMES[random.below(NAMES.len())];
        // From 2026-01-01 on, one message in seven minutes: 28 days, so that no month needs a calendar.
        let (day, hour, minute) = (1 + number / 206 % 28, number / 8 % 24, number * 7 % 60);
        let mut header = format!(
            "Return-Path: <{1}@outside.test>\r\nDate: {day} Jan 2026 {hour:02}:{minute:02}:00 +0000\r\n\
             From: =?utf-8?Q?{0}_L=C3=B6we?= <{1}@outside.test>\r\nTo: helpdesk@example.test\r\n\
             Subject: {2}\r\nMessage-ID: <{3}>\r\nMIME-Version: 1.0\r\n",
            name,
            name.to_lowercase(),
            encoded_word(&self.subject(number)),
            self.message_id(number)
        );
        // Every ninth answers the one before it.
        if number % 9 == 8 {
            let parent = self.message_id(number - 1);
            let _ = write!(header, "In-Reply-To: <{parent}>\r\nReferences: <{parent}>\r\n");
        }
        header.into_bytes()
    }

    /// Bytes: half of the messages a fifth of the mean, two fifths the mean, a tenth five times it.
    fn size(&self, random: &mut Random) -> usize {
        let mean = self.mean_kb * 1024;
        let base = match random.below(10) {
            0..5 => mean / 5,
            5..9 => mean,
            _ => mean * 5,
        };
        base / 2 + random.below(base.max(1))
    }
}

/// One message of about `size` bytes whose attachment cannot be compressed away; for limits.
pub fn large_message(size: usize) -> Vec<u8> {
    let mut random = Random::new(7, size);
    let mut out = Generator::new(7, 1).header(size, &mut random);
    with_attachment(&mut out, &mut random, size);
    out
}

/// One message with this many parts side by side.
pub fn many_parts(count: usize) -> Vec<u8> {
    let mut random = Random::new(8, count);
    let mut out = Generator::new(8, 1).header(count, &mut random);
    out.extend_from_slice(b"Content-Type: multipart/mixed; boundary=\"parts\"\r\n\r\n");
    for number in 0..count {
        let part = format!("--parts\r\nContent-Type: text/plain; name=\"part{number}.txt\"\r\n\r\npart {number}\r\n");
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"--parts--\r\n");
    out
}

fn text_part(out: &mut Vec<u8>, random: &mut Random, size: usize) {
    out.extend_from_slice(
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
    );
    let end = out.len() + size;
    while out.len() < end {
        let line = random.line(" ").replace('=', "=3D").replace('ü', "=C3=BC").replace('ß', "=C3=9F");
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn html_part(out: &mut Vec<u8>, random: &mut Random, size: usize) {
    out.extend_from_slice(b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n");
    let mut html = String::from("<html><body>");
    while html.len() < size / 4 * 3 {
        let _ = writeln!(html, "<p style=\"margin:0\">{}</p>", random.line(" "));
    }
    html.push_str("</body></html>");
    base64_lines(out, html.as_bytes());
}

fn alternative(out: &mut Vec<u8>, random: &mut Random, size: usize) {
    out.extend_from_slice(b"Content-Type: multipart/alternative; boundary=\"alt\"\r\n\r\n--alt\r\n");
    text_part(out, random, size / 3);
    out.extend_from_slice(b"--alt\r\n");
    html_part(out, random, size / 3 * 2);
    out.extend_from_slice(b"--alt--\r\n");
}

fn with_attachment(out: &mut Vec<u8>, random: &mut Random, size: usize) {
    out.extend_from_slice(b"Content-Type: multipart/mixed; boundary=\"mix\"\r\n\r\n--mix\r\n");
    text_part(out, random, size.min(2_000));
    out.extend_from_slice(
        b"--mix\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\
          Content-Disposition: attachment; filename*=utf-8''Anh%C3%A4nge.bin\r\n\r\n",
    );
    let mut bytes = vec![0; size / 4 * 3];
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]));
    base64_lines(out, &bytes);
    out.extend_from_slice(b"--mix--\r\n");
}

/// Text in the alphabets that existed before UTF-8, as 8-bit.
fn eight_bit(out: &mut Vec<u8>, random: &mut Random, size: usize) {
    let (charset, sample): (&str, &[u8]) = match random.below(4) {
        0 => ("iso-8859-1", b"Gr\xfc\xdfe aus K\xf6ln. "),
        1 => ("koi8-r", b"\xf0\xd2\xc9\xd7\xc5\xd4 \xc9\xda \xed\xcf\xd3\xcb\xd7\xd9. "),
        2 => ("windows-1252", b"\x84Angebot\x93 \x80 100 \x96 bitte. "),
        _ => ("iso-2022-jp", b"\x1b$B$3$s$K$A$O\x1b(B. "),
    };
    let header = format!("Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n");
    out.extend_from_slice(header.as_bytes());
    let end = out.len() + size;
    while out.len() < end {
        for _ in 0..3 {
            out.extend_from_slice(sample);
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn base64_lines(out: &mut Vec<u8>, bytes: &[u8]) {
    for line in bytes.chunks(57) {
        out.extend_from_slice(STANDARD.encode(line).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn encoded_word(text: &str) -> String {
    if text.is_ascii() { text.to_owned() } else { format!("=?utf-8?B?{}?=", STANDARD.encode(text)) }
}

/// splitmix64: small, and the same everywhere for ever.
struct Random(u64);

impl Random {
    fn new(seed: u64, number: usize) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (number as u64).wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn line(&mut self, separator: &str) -> String {
        (0..7).map(|_| WORDS[self.below(WORDS.len())]).collect::<Vec<_>>().join(separator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_every_time_and_about_the_mean_size() {
        let (one, two) = (Generator::new(1, 20), Generator::new(1, 20));
        let sizes: Vec<_> = (0..2_000).map(|n| one.message(n).len()).collect();
        assert!((0..50).all(|n| one.message(n) == two.message(n)));
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((17_000..24_000).contains(&mean), "{mean}");
    }

    #[test]
    fn every_line_ends_in_crlf_and_none_is_too_long_for_smtp() {
        for raw in (0..64).map(|n| Generator::new(3, 5).message(n)).chain([many_parts(20), large_message(100_000)]) {
            for line in raw.split_inclusive(|&byte| byte == b'\n') {
                assert!(line.ends_with(b"\r\n") && line.len() <= 1_000);
            }
        }
    }
}
