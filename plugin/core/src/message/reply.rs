//! What the person wrote now: the text without quoted history and signature. When in doubt, text is kept; nothing between
//! quoted lines is ever cut.

use memchr::memmem;
use serde::Serialize;

use super::{
    facts::Facts,
    html::{self, Part},
};

/// The answer alone, and what cut the rest off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reply {
    pub reply_text: Option<String>,
    /// `null`: nothing was cut.
    pub reply_cut: Option<Cut>,
}

/// Where the rest begins, so that a host can show it on demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    pub by: By,
    /// The fact that was cut: `text` or `html`.
    pub source: &'static str,
    /// Characters (code points) of that fact before the rest.
    pub at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The line that the form knows (`advanced.reply_delimiter`).
    Delimiter,
    /// A container of a mailer in the HTML.
    Container,
    /// From, Sent, To, Subject of the earlier message.
    HeaderBlock,
    /// "On Monday, Ann wrote:".
    Attribution,
    /// Lines that begin with `>`.
    Quote,
    Signature,
}

/// Of the facts of one message. By its HTML where that has a structure to go by, else by its text.
pub fn reply(facts: &Facts, delimiter: Option<&str>) -> Reply {
    let is_forward = facts.subject.as_deref().is_some_and(is_forward);
    if let Some(html) = facts.html.as_deref()
        && (facts.text.is_none() || is_structured(html))
    {
        let lines = html::lines(html);
        let reply = read(lines, html, "html", delimiter, is_forward);
        if facts.text.is_none() || reply.reply_cut.is_some() {
            return reply;
        }
    }
    match facts.text.as_deref() {
        Some(text) => read(lines_of(text), text, "text", delimiter, is_forward),
        None => Reply::default(),
    }
}

/// Is there anything in it that a container could be?
fn is_structured(html: &str) -> bool {
    const MARKS: [&str; 12] = [
        "<blockquote",
        "<BLOCKQUOTE",
        "gmail_",
        "yahoo",
        "moz-",
        "divRply",
        "divRpy",
        "appendonsend",
        "border-top",
        "OLK_SRC",
        "OutlookMessageHeader",
        "ignature",
    ];
    MARKS.iter().any(|mark| memmem::find(html.as_bytes(), mark.as_bytes()).is_some())
}

fn lines_of(text: &str) -> Vec<html::Line> {
    let mut at = 0;
    let lines = text.split_inclusive('\n').map(|line| {
        let begins = at;
        at += line.len();
        let text = line.trim_end().to_owned();
        let part = if text.trim_start().starts_with('>') { Part::Quoted("text") } else { Part::Written };
        html::Line { text, at: begins, part }
    });
    lines.collect()
}

fn read(
    mut lines: Vec<html::Line>,
    source: &str,
    name: &'static str,
    delimiter: Option<&str>,
    is_forward: bool,
) -> Reply {
    let whole = |lines: &[html::Line]| Reply { reply_text: joined(lines), reply_cut: None };
    let mut by: Vec<Option<By>> = lines.iter().map(|line| hidden_by(line.part)).collect();
    blocks(&mut lines, &mut by);
    signatures(&lines, &mut by);
    attributions(&lines, &mut by);
    if let Some(at) = rest(&lines, delimiter, is_forward, &mut by) {
        let reason = by[at];
        by[at..].iter_mut().for_each(|one| *one = one.or(reason));
    }
    // The last run of lines that nobody wrote now.
    let is_blank = |line: &html::Line| line.text.trim().is_empty();
    let last = (0..lines.len()).rev().find(|at| by[*at].is_none() && !is_blank(&lines[*at]));
    let Some(last) = last else { return whole(&lines) };
    let Some(first) = (last + 1..lines.len()).find(|at| by[*at].is_some()) else { return whole(&lines) };
    let hidden = &lines[first..];
    if is_forwarded(hidden) || (is_forward && by[first] != Some(By::Signature)) {
        return whole(&lines);
    }
    // "My answers are below in red": Outlook leaves no trace of where.
    if by[first..].contains(&Some(By::Container)) || by[first..].contains(&Some(By::HeaderBlock)) {
        let said = lines[..first].iter().map(|line| line.text.to_lowercase());
        if said.into_iter().any(|line| INLINE.iter().any(|words| line.contains(words))) {
            return whole(&lines);
        }
    }
    let reason = by[first..].iter().flatten().find(|one| **one != By::Signature).copied().unwrap_or(By::Signature);
    let at = source[..lines[first].at.min(source.len())].chars().count();
    Reply { reply_text: joined(&lines[..first]), reply_cut: Some(Cut { by: reason, source: name, at }) }
}

fn hidden_by(part: Part) -> Option<By> {
    match part {
        Part::Written | Part::Block => None,
        Part::Quoted("text") => Some(By::Quote),
        Part::Quoted(_) | Part::Rest(_) => Some(By::Container),
        Part::Signature => Some(By::Signature),
    }
}

fn joined(lines: &[html::Line]) -> Option<String> {
    let text = lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n");
    Some(text.trim_matches(['\n', ' ']).to_owned()).filter(|text| !text.is_empty())
}

/// A blockquote that no mailer marked is history when an attribution stands before it.
fn blocks(lines: &mut [html::Line], by: &mut [Option<By>]) {
    let mut before: Option<bool> = None;
    for at in 0..lines.len() {
        if lines[at].part != Part::Block {
            if !lines[at].text.is_empty() {
                before = None;
            }
            continue;
        }
        let is_history = *before.get_or_insert_with(|| {
            let above = (0..at).rev().find(|above| !lines[*above].text.is_empty());
            above.is_some_and(|above| attribution_from(lines, above).is_some())
        });
        if is_history {
            by[at] = Some(By::Container);
        }
    }
}

/// RFC 3676 section 4.3, and what telephones write.
fn signatures(lines: &[html::Line], by: &mut [Option<By>]) {
    let mut is_inside = false;
    for (at, line) in lines.iter().enumerate() {
        let text = line.text.trim();
        if by[at].is_some() {
            is_inside = false;
            continue;
        }
        is_inside |= text == "--" && lines.len() - at <= SIGNATURE_MAX + quoted_after(by, at);
        let lower = text.to_lowercase();
        if is_inside || (lower.len() < 80 && PHONES.iter().any(|words| lower.starts_with(words))) {
            by[at] = Some(By::Signature);
        }
    }
}

/// Lines of a signature.
const SIGNATURE_MAX: usize = 25;

fn quoted_after(by: &[Option<By>], at: usize) -> usize {
    by[at..].iter().filter(|one| one.is_some()).count()
}

fn attributions(lines: &[html::Line], by: &mut [Option<By>]) {
    let has_quotes = by.iter().any(|one| matches!(one, Some(By::Quote | By::Container)));
    for at in 0..lines.len() {
        if by[at].is_some() || lines[at].text.trim().is_empty() {
            continue;
        }
        let Some(from) = attribution_from(lines, at) else { continue };
        let next = (at + 1..lines.len()).find(|next| !lines[*next].text.trim().is_empty());
        let leads = next.is_some_and(|next| matches!(by[next], Some(By::Quote | By::Container)));
        if leads {
            by[from..=at].fill(Some(By::Attribution));
        } else if !has_quotes && next.is_some() && is_certain(&text_of(&lines[from..=at])) {
            // Some mailers quote without a mark: all below is history.
            by[from..].iter_mut().for_each(|one| *one = Some(By::Attribution));
            return;
        }
    }
}

fn text_of(lines: &[html::Line]) -> String {
    lines.iter().map(|line| line.text.trim()).collect::<Vec<_>>().join(" ")
}

/// Where the attribution begins that ends in line `at`; mailers wrap it.
fn attribution_from(lines: &[html::Line], at: usize) -> Option<usize> {
    let last = lines[at].text.trim_end();
    if !last.ends_with([':', '：']) && !JAPANESE.iter().any(|words| last.ends_with(words)) {
        return None;
    }
    let contiguous =
        (0..4usize).map_while(|back| at.checked_sub(back).filter(|from| !lines[*from].text.trim().is_empty()));
    let candidates: Vec<usize> = contiguous.collect();
    // The longest one that begins as attributions do, else the shortest one that is one.
    let begins = |from: &usize| {
        let lower = lines[*from].text.trim_start().to_lowercase();
        STARTS.iter().any(|start| lower.starts_with(start)) && is_attribution(&text_of(&lines[*from..=at]))
    };
    candidates
        .iter()
        .copied()
        .find(begins)
        .or_else(|| candidates.iter().copied().find(|from| is_attribution(&text_of(&lines[*from..=at]))))
}

fn is_attribution(text: &str) -> bool {
    let lower = text.to_lowercase();
    let names_one = text.contains('@') || text.contains(|c: char| c.is_ascii_digit());
    // Gmail has no verb in some languages: a moment and an address are enough.
    let names_both = text.contains('@') && has_clock(text);
    text.len() < 400 && (names_both || (names_one && VERBS.iter().any(|verb| lower.contains(verb))))
}

fn has_clock(text: &str) -> bool {
    text.as_bytes()
        .windows(4)
        .any(|four| four[0].is_ascii_digit() && four[1] == b':' && four[2].is_ascii_digit() && four[3].is_ascii_digit())
}

/// It names a moment or an address, and begins as attributions do.
fn is_certain(text: &str) -> bool {
    let lower = text.to_lowercase();
    STARTS.iter().any(|start| lower.starts_with(start)) && (has_clock(text) || text.contains('@'))
}

/// From where all is an earlier message, whatever stands there.
fn rest(lines: &[html::Line], delimiter: Option<&str>, is_forward: bool, by: &mut [Option<By>]) -> Option<usize> {
    let delimiter = delimiter.map(str::trim).filter(|delimiter| !delimiter.is_empty());
    for at in 0..lines.len() {
        let text = lines[at].text.trim();
        if let Some(delimiter) = delimiter
            && text.contains(delimiter)
        {
            by[at] = Some(By::Delimiter);
            return Some(at);
        }
        if matches!(lines[at].part, Part::Rest(_)) {
            return Some(at);
        }
        if by[at].is_none() && !is_forward && (is_original_message(text) || is_header_block(&lines[at..])) {
            // What the person passes on is theirs to say.
            let above = lines[..at].iter().rev().find(|line| !is_rule(&line.text));
            if above.is_some_and(|above| is_forwarded(std::slice::from_ref(above))) {
                return None;
            }
            let mut from = at;
            while let Some(above) = from.checked_sub(1).filter(|above| is_rule(&lines[*above].text)) {
                from = above;
            }
            by[from..=at].fill(Some(By::HeaderBlock));
            return Some(from);
        }
    }
    None
}

/// Empty, or a line drawn with signs.
fn is_rule(text: &str) -> bool {
    text.trim().chars().all(|c| matches!(c, '_' | '-' | '=' | '*' | ' '))
}

fn is_original_message(text: &str) -> bool {
    let inner = text.trim_matches(['-', '_', ' ', '>', '*']);
    let is_drawn = text.starts_with("--") && text.ends_with("--");
    is_drawn && ORIGINAL.contains(&inner.to_lowercase().as_str())
}

/// From, Sent, To, Subject in any language: the first label is known, and a date is among the lines.
fn is_header_block(lines: &[html::Line]) -> bool {
    let label = |line: &html::Line| {
        let text = line.text.trim().trim_start_matches('*');
        let (label, value) = text.split_once([':', '：'])?;
        let label = label.trim_matches(['*', ' ', '\u{a0}']).to_lowercase();
        (label.chars().count() <= 24 && !label.contains(|c: char| c.is_ascii_digit()))
            .then(|| (label, value.to_owned()))
    };
    let Some((first, _)) = lines.first().and_then(label) else { return false };
    if !FROM.contains(&first.as_str()) {
        return false;
    }
    let block = lines.iter().filter(|line| !line.text.trim().is_empty()).take(8).map_while(label);
    let block: Vec<String> = block.map(|(_, value)| value).collect();
    let has_date = |value: &String| {
        let digits = value.bytes().filter(u8::is_ascii_digit).count();
        digits >= 5 && value.len() < 200
    };
    block.len() >= 3 && block.iter().skip(1).any(has_date)
}

fn is_forward(subject: &str) -> bool {
    let lower = subject.trim().to_lowercase();
    ["fw:", "fwd:", "wg:", "tr:", "rv:", "enc:", "i:", "vb:", "vs:", "pd:", "fs:", "转发", "転送"]
        .iter()
        .any(|it| lower.starts_with(it))
}

fn is_forwarded(hidden: &[html::Line]) -> bool {
    let start = hidden.iter().filter(|line| !line.text.is_empty()).take(3).map(|line| line.text.to_lowercase());
    start.into_iter().any(|line| FORWARDED.iter().any(|words| line.contains(words)))
}

const INLINE: [&str; 9] =
    ["inline", "in-line", "in line below", "in red", "in blue", "below in", "in rot", "im text unten", "en rouge"];
const FORWARDED: [&str; 10] = [
    "forwarded message",
    "forwarded by",
    "weitergeleitete nachricht",
    "message transféré",
    "mensaje reenviado",
    "messaggio inoltrato",
    "doorgestuurd bericht",
    "mensagem encaminhada",
    "vidarebefordrat meddelande",
    "пересланное сообщение",
];
const PHONES: [&str; 16] = [
    "sent from my ",
    "sent from outlook",
    "sent from mail for",
    "sent from yahoo",
    "get outlook for",
    "von meinem iphone gesendet",
    "von meinem ipad gesendet",
    "gesendet von ",
    "envoyé de mon ",
    "enviado desde mi ",
    "enviado do meu ",
    "inviato da ",
    "verzonden vanaf mijn ",
    "skickat från min ",
    "wysłane z ",
    "отправлено с ",
];
const ORIGINAL: [&str; 24] = [
    "original message",
    "original appointment",
    "ursprüngliche nachricht",
    "originalnachricht",
    "original-nachricht",
    "message d'origine",
    "message d’origine",
    "message original",
    "mensaje original",
    "messaggio originale",
    "oorspronkelijk bericht",
    "mensagem original",
    "oryginalna wiadomość",
    "wiadomość oryginalna",
    "původní zpráva",
    "ursprungligt meddelande",
    "opprinnelig melding",
    "oprindelig meddelelse",
    "alkuperäinen viesti",
    "исходное сообщение",
    "eredeti üzenet",
    "orijinal mesaj",
    "原始邮件",
    "元のメッセージ",
];
const FROM: [&str; 28] = [
    "from",
    "von",
    "de",
    "da",
    "van",
    "od",
    "från",
    "fra",
    "lähettäjä",
    "от",
    "від",
    "kimden",
    "feladó",
    "expéditeur",
    "mittente",
    "afzender",
    "absender",
    "remitente",
    "remetente",
    "απο",
    "από",
    "发件人",
    "寄件者",
    "差出人",
    "보낸 사람",
    "מאת",
    "saatja",
    "de la",
];
const STARTS: [&str; 26] = [
    "on ",
    "am ",
    "le ",
    "el ",
    "il ",
    "op ",
    "em ",
    "den ",
    "dnia ",
    "w dniu ",
    "dne ",
    "dňa ",
    "pe ",
    "la data ",
    "în ",
    "på ",
    "kl. ",
    "ma ",
    "ti ",
    "στις ",
    "в ",
    "on:",
    "am:",
    "vào ",
    "at ",
    "a ",
];
const VERBS: [&str; 42] = [
    "пише",
    "menulis",
    "wrote",
    "writes",
    "schrieb",
    "geschrieben",
    "a écrit",
    "écrit",
    "escribió",
    "escribio",
    "ha scritto",
    "scrisse",
    "geschreven",
    "schreef",
    "napisał",
    "napisal",
    "pisze",
    "napsal",
    "napísal",
    "skrev",
    "escreveu",
    "kirjoitti",
    "írta",
    "a scris",
    "yazdı",
    "написал",
    "писал",
    "пишет",
    "написа",
    "написав",
    "έγραψε",
    "כתב",
    "كتب",
    "写道",
    "寫道",
    "のメール",
    "書きました",
    "작성",
    "viết",
    "kirjutas",
    "rašė",
    "rakstīja",
];
const JAPANESE: [&str; 4] = ["のメール:", "書きました", "写道", "寫道"];

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(text: &str) -> Reply {
        reply(
            &Facts { text: Some(text.to_owned()), ..Facts::default() },
            Some("##- Please type your reply above this line -##"),
        )
    }

    fn of_html(html: &str) -> Reply {
        reply(&Facts { html: Some(html.to_owned()), ..Facts::default() }, None)
    }

    #[test]
    fn attributions_in_many_languages() {
        for attribution in [
            "On Mon, 23 Nov 2026 at 10:00, Ann <ann@x.test> wrote:",
            "On Mon, 23 Nov 2026 at 10:00, Ann the first\n<ann@x.test> wrote:",
            "Am 23.11.2026 um 10:00 schrieb Ann <ann@x.test>:",
            "Le lun. 23 nov. 2026 à 10:00, Ann <ann@x.test> a écrit :",
            "El lun, 23 nov 2026 a las 10:00, Ann (<ann@x.test>) escribió:",
            "Il giorno lun 23 nov 2026 alle ore 10:00 Ann <ann@x.test> ha scritto:",
            "Op ma 23 nov 2026 om 10:00 schreef Ann <ann@x.test>:",
            "Em seg., 23 de nov. de 2026 às 10:00, Ann <ann@x.test> escreveu:",
            "pon., 23 lis 2026 o 10:00 Ann <ann@x.test> napisał(a):",
            "po 23. 11. 2026 v 10:00 odesílatel Ann <ann@x.test> napsal:",
            "Den mån 23 nov. 2026 kl 10:00 skrev Ann <ann@x.test>:",
            "ma 23. marrask. 2026 klo 10.00 Ann (ann@x.test) kirjoitti:",
            "Ann <ann@x.test> ezt írta (időpont: 2026. nov. 23., H, 10:00):",
            "În lun., 23 nov. 2026 la 10:00, Ann <ann@x.test> a scris:",
            "Ann <ann@x.test>, 23 Kas 2026 Pzt, 10:00 tarihinde şunu yazdı:",
            "пн, 23 нояб. 2026 г. в 10:00, Ann <ann@x.test> написал(а):",
            "Στις Δευ 23 Νοε 2026 στις 10:00, ο χρήστης Ann <ann@x.test> έγραψε:",
            "Ann <ann@x.test> 于2026年11月23日周一 10:00写道：",
            "2026年11月23日(月) 10:00 Ann <ann@x.test>:さんのメール:",
            "2026年11月23日(月) 10:00 Ann <ann@x.test>:",
            "2026년 11월 23일 (월) 오전 10:00, Ann <ann@x.test>님이 작성:",
        ] {
            let reply = of_text(&format!("It works.\n\n{attribution}\n> Try again\n> now\n"));
            assert_eq!(reply.reply_text.as_deref(), Some("It works."), "{attribution}");
            let cut = reply.reply_cut.unwrap();
            assert_eq!((cut.by, cut.at, cut.source), (By::Attribution, 11, "text"), "{attribution}");
        }
    }

    #[test]
    fn containers_of_the_usual_mailers() {
        for (mailer, html) in [
            (
                "Gmail",
                "<div dir=ltr>It works.</div><br><div class=\"gmail_quote\"><div dir=ltr class=\"gmail_attr\">On Mon Ann wrote:<br></div><blockquote class=\"gmail_quote\">old</blockquote></div>",
            ),
            (
                "Apple Mail",
                "It works.<br><div><br><blockquote type=\"cite\"><div>On 1 Jan 2026, at 10:00, Ann wrote:</div><div>old</div></blockquote></div>",
            ),
            (
                "Thunderbird",
                "<p>It works.</p><div class=\"moz-cite-prefix\">On 1.1.26 Ann wrote:</div><blockquote type=\"cite\">old</blockquote>",
            ),
            (
                "Yahoo",
                "<div>It works.</div><div id=\"yahoo_quoted_1\" class=\"yahoo_quoted\"><div>On Monday Ann wrote:</div><div>old</div></div>",
            ),
            (
                "Outlook web",
                "<div>It works.</div><div id=\"appendonsend\"></div><hr><div id=\"divRplyFwdMsg\"><b>From:</b> Ann</div><div>old</div>",
            ),
            (
                "Outlook",
                "<p class=MsoNormal>It works.</p><div><div style='border:none;border-top:solid #E1E1E1 1.0pt;padding:3.0pt 0cm 0cm 0cm'><p><b>From:</b> Ann</p></div></div><p>old</p>",
            ),
            ("plain blockquote", "<p>It works.</p><p>On 1 Jan 2026 Ann wrote:</p><blockquote>old</blockquote>"),
        ] {
            let reply = of_html(html);
            assert_eq!(reply.reply_text.as_deref(), Some("It works."), "{mailer}");
            let cut = reply.reply_cut.unwrap();
            let rest: String = html.chars().skip(cut.at).collect();
            assert!(rest.contains("old") && !rest.contains("It works"), "{mailer}: {rest}");
        }
        let own = of_html("<p>The text says:</p><blockquote>never do this</blockquote>");
        assert_eq!((own.reply_text.as_deref(), own.reply_cut), (Some("The text says:\n\nnever do this"), None));
    }

    #[test]
    fn answers_between_quoted_lines_are_kept() {
        let inline = "On 1 Jan 2026 Ann wrote:\n> one?\nYes.\n> two?\nNo.\n> bye\n";
        let reply = of_text(inline);
        assert_eq!(reply.reply_text.as_deref(), Some("On 1 Jan 2026 Ann wrote:\n> one?\nYes.\n> two?\nNo."));
        let below = of_text("> one?\n> two?\n\nBoth work.\n");
        assert_eq!((below.reply_text.as_deref(), below.reply_cut), (Some("> one?\n> two?\n\nBoth work."), None));
        let html = of_html(
            "<div class=gmail_quote><div class=gmail_attr>On Ann wrote:</div><blockquote class=gmail_quote>one?</blockquote><div>Yes.</div><blockquote class=gmail_quote>bye</blockquote></div>",
        );
        assert!(html.reply_text.unwrap().ends_with("one?\nYes."));
        let red = "My answers are inline in red.\n\n-----Original Message-----\nFrom: Ann\nold\nnew\n";
        assert_eq!(of_text(red).reply_cut, None);
    }

    #[test]
    fn header_blocks_delimiters_and_signatures() {
        for (text, by) in [
            ("It works.\n\n-----Original Message-----\nFrom: Ann\nold\n", By::HeaderBlock),
            (
                "It works.\n\n________________________________\nVon: Ann <a@b.test>\nGesendet: Montag, 23. November 2026 10:00\nAn: Bob\nBetreff: x\n\nold\n",
                By::HeaderBlock,
            ),
            ("It works.\n##- Please type your reply above this line -##\nold\n", By::Delimiter),
            ("It works.\n\n-- \nAnn\nExample Ltd\n", By::Signature),
            ("It works.\n\nSent from my iPhone\n\n> old\n", By::Quote),
            ("It works.\n\nOn Mon, 23 Nov 2026 at 10:00 Ann <ann@x.test> wrote:\n\nold\n", By::Attribution),
            ("It works.\n\n> old\n> older\n", By::Quote),
        ] {
            let reply = of_text(text);
            assert_eq!(reply.reply_text.as_deref(), Some("It works."), "{text}");
            assert_eq!(reply.reply_cut.unwrap().by, by, "{text}");
        }
        for kept in
            ["Please note:\n- one\n- two\n", "From: my desk\nTo: yours\nHello", "In 2026 he wrote:\nnothing at all"]
        {
            assert_eq!(of_text(kept).reply_cut, None, "{kept}");
        }
        let forward = "See below.\n\n---------- Forwarded message ---------\nFrom: Ann\nDate: Mon, Nov 23, 2026 at 10:00\nTo: Bob\n\nx";
        assert_eq!(of_text(forward).reply_cut, None);
    }
}
