//! SOAP 1.1 around the operations, and what comes back: a fault, or one response message for each item.

use roxmltree::{Document, Node, ParsingOptions};

use super::{client::Identity, lenient::is_char};
use crate::limits;

const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const TYPES: &str = "http://schemas.microsoft.com/exchange/services/2006/types";
const MESSAGES: &str = "http://schemas.microsoft.com/exchange/services/2006/messages";

/// Schema versions that are asked for, the newest first. 2013 SP1 knows SuppressReadReceipts; nothing newer is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Exchange2013Sp1,
    Exchange2010Sp2,
    Exchange2010,
}

impl Version {
    pub const ALL: [Self; 3] = [Self::Exchange2013Sp1, Self::Exchange2010Sp2, Self::Exchange2010];

    pub fn name(self) -> &'static str {
        match self {
            Self::Exchange2013Sp1 => "Exchange2013_SP1",
            Self::Exchange2010Sp2 => "Exchange2010_SP2",
            Self::Exchange2010 => "Exchange2010",
        }
    }

    /// Without it, marking a message as read may send a receipt to its sender.
    pub fn suppresses_receipts(self) -> bool {
        self == Self::Exchange2013Sp1
    }
}

/// Where a folder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FolderId {
    /// One that every mailbox has.
    Distinguished(&'static str),
    Id(String),
}

impl FolderId {
    pub const INBOX: Self = Self::Distinguished("inbox");
    pub const SENT: Self = Self::Distinguished("sentitems");
    pub const DRAFTS: Self = Self::Distinguished("drafts");
    pub const ROOT: Self = Self::Distinguished("msgfolderroot");

    /// With the mailbox, where it is not that of who signed in.
    pub fn xml(&self, identity: &Identity) -> String {
        match (self, identity) {
            (Self::Id(id), _) => format!("<t:FolderId Id=\"{}\"/>", escape(id)),
            (Self::Distinguished(id), Identity::Delegate { mailbox }) => format!(
                "<t:DistinguishedFolderId Id=\"{id}\"><t:Mailbox><t:EmailAddress>{}</t:EmailAddress></t:Mailbox>\
                 </t:DistinguishedFolderId>",
                escape(mailbox)
            ),
            (Self::Distinguished(id), _) => format!("<t:DistinguishedFolderId Id=\"{id}\"/>"),
        }
    }
}

/// `<t:ItemId Id="…"/>` of each.
pub fn item_ids(ids: &[&str]) -> String {
    ids.iter().map(|id| format!("<t:ItemId Id=\"{}\"/>", escape(id))).collect()
}

/// The whole request, in the room of `body`: of a message to be sent there is no second copy.
pub fn envelope(version: Version, identity: &Identity, mut body: String) -> String {
    let impersonation = match identity {
        Identity::Application { mailbox } => format!(
            "<t:ExchangeImpersonation><t:ConnectingSID><t:PrimarySmtpAddress>{}</t:PrimarySmtpAddress>\
             </t:ConnectingSID></t:ExchangeImpersonation>",
            escape(mailbox)
        ),
        Identity::Own | Identity::Delegate { .. } => String::new(),
    };
    let head = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><s:Envelope xmlns:s=\"{SOAP}\" xmlns:t=\"{TYPES}\" \
         xmlns:m=\"{MESSAGES}\"><s:Header><t:RequestServerVersion Version=\"{}\"/>{impersonation}</s:Header><s:Body>",
        version.name()
    );
    body.insert_str(0, &head);
    body.push_str("</s:Body></s:Envelope>");
    body
}

/// Text or attribute. What XML cannot carry at all becomes U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", u32::from(c))),
            c if is_char(c) => out.push(c),
            _ => out.push('\u{FFFD}'),
        }
    }
    out
}

/// No DOCTYPE, so no entities of anybody's making; depth and size were bounded by the splitter.
pub fn parse(text: &str) -> Option<Document<'_>> {
    let options = ParsingOptions { allow_dtd: false, nodes_limit: limits::EWS_NODES_MAX, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).ok()
}

/// Refused: a fault, or one of the response messages.
#[derive(Debug, Default)]
pub struct Refusal {
    /// ResponseCode, verbatim.
    pub code: String,
    /// Codes that stand inside, where the outer one says less.
    pub inner: Option<String>,
    pub back_off_ms: Option<u64>,
    /// The right address, of ErrorNonPrimarySmtpAddress.
    pub primary: Option<String>,
}

/// gromox says the same as Exchange in all its answers but for the prefix of the envelope: Exchange writes `s:` and, before
/// 2013, `soap:` (gromox: exch/ews/soaputil.cpp).
pub fn is_of_gromox(document: &Document<'_>) -> bool {
    document.input_text()[document.root_element().range()].starts_with("<SOAP:")
}

/// What the body holds.
pub enum Body<'a> {
    Fault(Refusal),
    /// In the order of what was asked for.
    Messages(Vec<Result<Node<'a, 'a>, Refusal>>),
}

/// `None`: that is no answer of EWS.
pub fn body<'a>(document: &'a Document<'a>) -> Option<Body<'a>> {
    let envelope =
        Some(document.root_element()).filter(|node| node.has_tag_name("Envelope") || local(*node, "Envelope"))?;
    let content = child(envelope, "Body")?.children().find(Node::is_element)?;
    if local(content, "Fault") {
        let detail = child(content, "detail");
        let code = detail
            .and_then(|detail| child(detail, "ResponseCode"))
            .map(text)
            .or_else(|| child(content, "faultcode").map(|code| text(code).rsplit(':').next().unwrap_or_default()));
        return Some(Body::Fault(refusal(code.unwrap_or_default(), detail.unwrap_or(content))));
    }
    // gromox 3.10 calls it Responses in the answer to SendItem.
    let holds_messages = |node: &Node<'_, '_>| {
        node.children().any(|child| child.is_element() && child.tag_name().name().ends_with("ResponseMessage"))
    };
    let holder = child(content, "ResponseMessages").or_else(|| content.children().find(holds_messages))?;
    let messages = holder.children().filter(Node::is_element);
    let message = |node: Node<'a, 'a>| {
        let code = child(node, "ResponseCode").map(text).unwrap_or_default();
        match node.attribute("ResponseClass") {
            Some("Error") => Err(refusal(code, node)),
            // Not worked off: an item before it failed (ErrorBatchProcessingStopped).
            Some("Warning") if code != "NoError" => Err(refusal(code, node)),
            _ => Ok(node),
        }
    };
    Some(Body::Messages(messages.map(message).collect()))
}

fn refusal(code: &str, around: Node<'_, '_>) -> Refusal {
    let value = |name: &str| {
        let mut values = around.descendants().filter(|node| local(*node, "Value"));
        values.find(|node| node.attribute("Name") == Some(name)).map(text)
    };
    let word =
        |text: &str| text.chars().filter(char::is_ascii_alphanumeric).take(limits::EWS_CODE_MAX).collect::<String>();
    Refusal {
        code: word(code),
        inner: value("InnerErrorResponseCode").map(word),
        back_off_ms: value("BackOffMilliseconds").and_then(|text| text.trim().parse().ok()),
        primary: value("Primary").map(|text| text.chars().filter(|c| !c.is_control()).take(320).collect()),
    }
}

pub fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| local(*child, name))
}

/// By local name: who writes which prefix is nobody's business.
pub fn local(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().name() == name
}

pub fn text<'a>(node: Node<'a, 'a>) -> &'a str {
    node.text().unwrap_or_default()
}

/// An xs:boolean: `true` or `1`, white space around it does not count (XML Schema part 2, 3.2.2).
pub fn is_true(node: Node<'_, '_>) -> bool {
    matches!(text(node).trim(), "true" | "1")
}

/// The id of an item or folder, where it can be one.
pub fn id<'a>(node: Node<'a, 'a>, name: &str) -> Option<&'a str> {
    child(node, name)?.attribute("Id").filter(|id| !id.is_empty() && id.len() <= limits::EWS_ID_MAX)
}
