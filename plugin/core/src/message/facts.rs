//! What is known of a message without opening it: the document that travels beside the raw bytes.

use serde::Serialize;

/// All of it is what the sender wrote, decoded; nothing in it is verified. Ids stand without their angle brackets.
/// NUL characters are shown as U+FFFD, because many databases refuse them. What is one line has no line end and no other
/// control character in it, also where an encoded word held one: it can be handed on as a header.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    pub message_id: Option<String>,
    pub in_reply_to: Vec<String>,
    pub references: Vec<String>,
    pub subject: Option<String>,
    /// RFC 3339, in the sender's own time zone; `-00:00` where it is not told. `null`: no valid date.
    pub date: Option<String>,
    /// The same moment in seconds since 1970-01-01 UTC.
    pub date_unix: Option<i64>,
    /// A name without an address has the empty address (`MAILER-DAEMON <>`); so in `sender`.
    pub from: Vec<Mailbox>,
    pub sender: Vec<Mailbox>,
    pub reply_to: Vec<Mailbox>,
    pub to: Vec<Mailbox>,
    pub cc: Vec<Mailbox>,
    pub bcc: Vec<Mailbox>,
    /// The text/plain body; several inline ones are joined. Where a part of the mail is HTML only, its words are in it.
    /// `null` when all of it is HTML only.
    pub text: Option<String>,
    pub text_truncated: bool,
    /// The text/html body as it was sent: not sanitised. Where a part of the mail is text only, it is in it as `<pre>`.
    pub html: Option<String>,
    pub html_truncated: bool,
    pub attachments: Vec<Attachment>,
    /// Raw bytes of the whole message.
    pub size: u64,
    pub headers: Headers,
    /// `Some` in bounces, receipts and other multipart/report messages (RFC 6522).
    pub report: Option<Report>,
    /// Of the first attached message. A bounce without a report returns the mail so.
    #[serde(skip)]
    pub(super) attached_message_id: Option<String>,
    /// Why the facts are empty although there is a message. The raw bytes are complete.
    pub unparsed: Option<String>,
    pub flags: Vec<Flag>,
}

/// RFC 5322 section 3.4.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mailbox {
    pub name: Option<String>,
    pub address: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// As the sender named it: never a path to trust.
    pub name: Option<String>,
    /// Lower-case media type, `application/pdf`.
    #[serde(rename = "type")]
    pub media_type: String,
    /// Decoded bytes.
    pub size: u64,
    pub content_id: Option<String>,
    /// Shown inside the body (Content-Disposition inline, or an image that the HTML refers to by its Content-ID).
    pub inline: bool,
    /// What [`super::attachment`] takes.
    pub part_index: u32,
}

/// Header fields that say how a message came about; verbatim, unfolded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Headers {
    /// RFC 3834.
    pub auto_submitted: Option<String>,
    pub precedence: Option<String>,
    /// RFC 2919.
    pub list_id: Option<String>,
    /// RFC 5321 section 4.4; the empty text is the null sender `<>`.
    pub return_path: Option<String>,
    /// MS-OXCMAIL: the sender asks not to be answered automatically.
    pub x_auto_response_suppress: Option<String>,
    /// X-Autoreply, X-Autorespond and their kin: what responders older than RFC 3834 write.
    pub x_autoreply: Option<String>,
    /// Exim and Gmail write it into bounces: the addresses that were not reached.
    pub x_failed_recipients: Option<String>,
    /// Whoever wrote its address here has seen the message before.
    pub x_loop: Vec<String>,
    /// One per hop that wrote it, the last hop first.
    pub delivered_to: Vec<String>,
    /// X-Original-From or X-Original-Sender: who wrote it, where a group or list put its own address into From.
    pub x_original_from: Vec<Mailbox>,
    pub x_mailer: Option<String>,
}

impl Headers {
    /// `Delivered-To: Autoresponder`, which is not an address.
    pub(super) fn delivered_to_responder(&self) -> Option<String> {
        let is_responder = |text: &&String| text.to_ascii_lowercase().starts_with("autorespond") && !text.contains('@');
        self.delivered_to.iter().find(is_responder).cloned()
    }
}

/// RFC 6522, and RFC 3464 for the delivery fields. Those beside `recipients` are of the first one that failed; where none
/// did, of the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `delivery-status`, `disposition-notification`, `feedback-report`.
    #[serde(rename = "type")]
    pub report_type: Option<String>,
    /// Message-ID of the message that the report is about.
    pub original_message_id: Option<String>,
    pub final_recipient: Option<String>,
    /// `failed`, `delayed`, `delivered`, `relayed`, `expanded`.
    pub action: Option<String>,
    /// RFC 3463 code: `5.1.1`.
    pub status: Option<String>,
    pub diagnostic: Option<String>,
    /// Who the report speaks of; the failed ones first.
    pub recipients: Vec<ReportRecipient>,
}

/// RFC 3464 section 2.3, RFC 8098 section 3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReportRecipient {
    pub address: String,
    pub action: Option<String>,
    pub status: Option<String>,
    pub diagnostic: Option<String>,
}

/// What could not be taken into the facts as it is. The raw bytes always have all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// Multiparts are nested deeper than `limits::MIME_DEPTH_MAX`; the deepest one is shown as one attachment.
    TooDeep,
    /// More parts, or more header bytes in them, than `limits::MIME_PARTS_MAX` and `MIME_FIELDS_MAX`.
    TooManyParts,
    /// More attachments than `limits::FACT_ATTACHMENTS_MAX`.
    AttachmentsTruncated,
    /// A header field longer than `limits::MIME_FIELD_MAX`, or more of them, or more addresses or ids, than are read.
    HeadersTruncated,
}
