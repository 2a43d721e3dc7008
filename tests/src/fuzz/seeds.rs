//! What is mutated, and the words that mean something in it.

use serde_json::{Value, json};

use super::hostile::TURN;
use crate::mailgen::{self, Generator};

pub const IMAP_WORDS: &[&str] = &[
    "* ",
    "TAG ",
    "OK ",
    "NO ",
    "BAD ",
    "BYE ",
    "PREAUTH ",
    "+ ",
    "\r\n",
    TURN,
    "FETCH (",
    "UID ",
    "RFC822.SIZE ",
    "BODY[] ",
    "INTERNALDATE ",
    "NIL",
    "{3}\r\n",
    "{0}\r\n",
    "{4294967296}\r\n",
    "EXISTS",
    "[UIDVALIDITY ",
    "[UIDNEXT ",
    "[CAPABILITY ",
    "SEARCH ",
    "EXPUNGE",
    "VANISHED ",
    "\"",
    "(",
    ")",
    "\\",
    "[LIMIT] ",
    "[EXPUNGEISSUED] ",
    "BODYSTRUCTURE (",
    "ENVELOPE (",
];
pub const EWS_WORDS: &[&str] = &[
    "<m:MimeContent>",
    "</m:MimeContent>",
    "<t:ItemId Id=\"",
    "\"/>",
    "QUJD",
    "==",
    "<![CDATA[",
    "]]>",
    "<!-- ",
    " -->",
    "<!DOCTYPE a [<!ENTITY b \"c\">]>",
    "&b;",
    "&#x0;",
    "&lt;",
    "<?xml version=\"1.0\"?>",
    "<s:Fault>",
    "ResponseClass=\"Error\"",
    "<m:ResponseCode>",
    "<t:Value Name=\"BackOffMilliseconds\">",
    "<t:Create>",
    "<t:Delete>",
    "<m:SyncState>",
    "<m:IncludesLastItemInRange>",
    "true",
    " xmlns=\"",
    "/>",
    "'",
];
pub const SMTP_WORDS: &[&str] = &[
    "220 ",
    "250 ",
    "250-",
    "235 ",
    "334 ",
    "354 ",
    "421 ",
    "450 ",
    "535 5.7.8 ",
    "554 ",
    "\r\n",
    "-",
    TURN,
    "AUTH XOAUTH2",
    "SIZE ",
    "PIPELINING",
    "CHUNKING",
    "SMTPUTF8",
];
pub const MAIL_WORDS: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "\r\n ",
    "\r\n\t",
    "--alt",
    "--mix--",
    "Content-Type: ",
    "multipart/mixed; boundary=",
    "message/rfc822",
    "text/plain; charset=",
    "multipart/report; report-type=delivery-status",
    "Content-Transfer-Encoding: base64",
    "quoted-printable",
    "filename*0*=utf-8''%",
    "=?utf-8?B?",
    "=?iso-2022-jp?Q?",
    "?=",
    "References: <",
    "In-Reply-To: ",
    "Message-ID: ",
    "Date: ",
    "From: ",
    "Auto-Submitted: auto-replied",
    "[Request ID: ##7##]",
    "(",
    ")",
    "<",
    ">",
    ";",
    "\"",
    "=",
    ":",
    "@",
];
pub const JSON_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "true",
    "\"\"",
    "\\u0000",
    "\\ud800",
    "1e999",
    "-0",
    "\"advanced\":",
    "\"provider\":",
    "\"microsoft365\"",
    "\"google\"",
    "https://",
    "http://",
    "[::1]",
    "xn--",
    "@",
    "\\r\\n",
    "{\"env\":\"X\"}",
    "{id}",
    "%",
];

/// The settings of either direction, for a server on `port` of localhost.
pub fn form(direction: &str, port: u16, ca_file: &str) -> Value {
    let mut form = json!({
        "authentication_type": "OAuth",
        "server_name": "localhost",
        "username": "alice@example.test",
        "port": port,
        "client_id": "client",
        "client_secret": "a secret",
        "authorize_url": "https://localhost:1/authorize",
        "access_token_url": "https://localhost:1/token",
        "scope": "openid offline_access mail",
        "redirect_url": "http://127.0.0.1:40123/callback",
        "advanced": {"ca_file": ca_file, "issuer": "https://localhost:1", "authorize_parameters": {"prompt": "consent"}},
    });
    let more = match direction {
        "incoming" => json!({
            "connection_protocol": "POP/IMAP/POPS/IMAPS", "protocol": "IMAPS", "email_addresses": ["alice@example.test"],
            "fetch_interval_minutes": 5, "enable_email_debug": true, "disable_new_request_creation": false,
        }),
        _ => json!({
            "connection_protocol": "SMTP/SMTPS", "protocol": "SMTPS", "enable_tls": true,
            "sender_name": "Helpdesk", "reply_to": "alice@example.test",
        }),
    };
    for (name, value) in more.as_object().into_iter().flatten() {
        form[name] = value.clone();
    }
    json!({ direction: form })
}

pub fn imap_lines() -> Vec<Vec<u8>> {
    [
        "* 1 FETCH (UID 7 RFC822.SIZE 2048 INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" FLAGS (\\Seen $x))\r\n",
        "* 2 FETCH (UID 8 BODY[] {5}\r\nabcde X-Y {2+}\r\n\r\n)\r\n* 3 EXISTS\r\nb1 OK done\r\n",
        "* 3 FETCH (UID 9 BODY[] \"quoted \\\" text\" INTERNALDATE NIL)\r\n",
        "* 4 FETCH (BODYSTRUCTURE ((\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"7bit\" 1 1) \"mixed\"))\r\n",
        "* 5 FETCH (ENVELOPE (\"Mon, 7 Feb 1994\" \"s\" ((\"a\" NIL \"b\" \"c\")) NIL NIL NIL NIL NIL NIL \"<i@d>\"))\r\n",
        "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 SASL-IR] ready\r\n* SEARCH 1 2 4294967295\r\n* BYE [UNAVAILABLE] later\r\n",
        "* LIST (\\HasNoChildren) \"/\" \"M&APw-ll\"\r\n* STATUS INBOX (UIDNEXT 7 UIDVALIDITY 9)\r\na1 NO [LIMIT] too many\r\n",
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec()
}

pub fn messages() -> Vec<Vec<u8>> {
    let generator = Generator::new(3, 1);
    let mut messages: Vec<_> =
        (0..16).map(|number| generator.message(number)).filter(|raw| raw.len() < 4_000).collect();
    messages.push(mailgen::many_parts(5));
    messages.push(
        b"From: \"A, B\" <a@b.test>, Group: c@d.test, e@f.test;\r\nTo: =?utf-8?Q?Z=C3=B6?= <z@x.test> (comment)\r\n\
          Subject: Re: [Request ID: ##42##] =?iso-2022-jp?B?GyRCJDMbKEI=?=\r\nDate: Tue, 29 Feb 2028 25:61:00 +9999\r\n\
          References: <a@b> <c@d>\r\n\t<e@f>\r\nAuto-Submitted: auto-generated (rejected)\r\n\
          Content-Type: multipart/report; report-type=delivery-status; boundary=\"alt\"\r\n\r\n--alt\r\n\r\nno\r\n\
          --alt\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822; a@b\r\n\
          Action: failed\r\nStatus: 5.1.1\r\n\r\n--alt\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <o@p>\r\n\r\nx\r\n--alt--\r\n"
            .to_vec(),
    );
    messages.push(b"Bcc: x@y.test\nTo: bob@example.test\rSubject: bare\n\n.\n..\n".to_vec());
    messages
}

/// A script of [`super::hostile::Hostile`].
pub fn turns(turns: &[&str]) -> Vec<u8> {
    turns.join(TURN).into_bytes()
}

/// Answers of Exchange: changes, messages, a fault.
pub fn ews_answers() -> Vec<Vec<u8>> {
    let envelope = |body: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><s:Envelope xmlns:s=\"s\" xmlns:m=\"m\" xmlns:t=\"t\"><s:Body>{body}\
             </s:Body></s:Envelope>"
        )
        .into_bytes()
    };
    let response = |messages: &str| {
        envelope(&format!("<m:Response><m:ResponseMessages>{messages}</m:ResponseMessages></m:Response>"))
    };
    let done = "<m:Message ResponseClass=\"Success\"><m:ResponseCode>NoError</m:ResponseCode>";
    vec![
        response(&format!(
            "{done}<m:SyncState>H4sI</m:SyncState><m:IncludesLastItemInRange>false</m:IncludesLastItemInRange><m:Changes>\
             <t:Create><t:Message><t:ItemId Id=\"AAMk=\" ChangeKey=\"CQAA\"/><t:DateTimeReceived>2026-11-01T10:00:00Z\
             </t:DateTimeReceived><t:Size>4711</t:Size><t:IsDraft>false</t:IsDraft></t:Message></t:Create><t:Create>\
             <t:Contact><t:ItemId Id=\"B\"/></t:Contact></t:Create><t:Delete><t:ItemId Id=\"AAMk=\"/></t:Delete>\
             <t:ReadFlagChange><t:ItemId Id=\"C\"/><t:IsRead>true</t:IsRead></t:ReadFlagChange></m:Changes></m:Message>"
        )),
        response(&format!(
            "{done}<m:Items><t:Message><t:MimeContent CharacterSet=\"UTF-8\">U3ViamVjdDogYQ0KDQo=</t:MimeContent>\
             <t:ItemId Id=\"A\"/></t:Message></m:Items></m:Message><m:Message ResponseClass=\"Error\"><m:MessageText>no\
             </m:MessageText><m:ResponseCode>ErrorItemNotFound</m:ResponseCode><m:Items/></m:Message>"
        )),
        envelope(
            "<s:Fault><faultcode>a:ErrorServerBusy</faultcode><detail><e:ResponseCode xmlns:e=\"e\">ErrorServerBusy\
             </e:ResponseCode><t:MessageXml><t:Value Name=\"BackOffMilliseconds\">297749</t:Value></t:MessageXml></detail>\
             </s:Fault>",
        ),
    ]
}
