//! ConvertId, by which clients ask for the server's version, and GetServerTimeZones, which knows one.

use base64::{Engine, engine::general_purpose::STANDARD};
use roxmltree::Node;

use super::{
    Answer, Outcome,
    access::Caller,
    invalid, refuse,
    xml::{child, elements, escape},
};
use crate::mailbox::ids;

/// EwsId, EntryId and HexEntryId: the same bytes, written in base64 or hexadecimal.
///
/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/convertid-operation>
pub fn convert_id(_: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let wanted = request.attribute("DestinationFormat").ok_or_else(|| invalid("DestinationFormat is missing"))?;
    let sources = child(request, "SourceIds").ok_or_else(|| invalid("SourceIds is missing"))?;
    let one = |source: Node<'_, '_>| -> Outcome {
        let id = source.attribute("Id").unwrap_or_default();
        let id = match source.attribute("Format") {
            Some("HexEntryId") => from_hex(id).map(|bytes| STANDARD.encode(bytes)).unwrap_or_default(),
            _ => id.to_owned(),
        };
        if ids::parse_ews_id(&id).is_none() && ids::parse_ews_folder_id(&id).is_none() {
            return Err(refuse("ErrorInvalidIdMalformed", "Id is malformed."));
        }
        let converted = match wanted {
            "EwsId" | "EntryId" => id,
            "HexEntryId" => STANDARD.decode(&id).unwrap_or_default().iter().map(|byte| format!("{byte:02X}")).collect(),
            _ => return Err(refuse("ErrorUnsupportedTypeForConversion", "This format is not served here.")),
        };
        let mailbox = escape(source.attribute("Mailbox").unwrap_or_default());
        Ok(format!(
            "<m:AlternateId xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"t:AlternateIdType\" \
             Format=\"{}\" Id=\"{converted}\" Mailbox=\"{mailbox}\"/>",
            escape(wanted)
        ))
    };
    Ok(elements(sources).map(one).collect())
}

/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/getservertimezones-operation>
pub fn get_server_time_zones(_: &Caller<'_>, _: Node<'_, '_>) -> Answer {
    let zone = "<t:TimeZoneDefinition Id=\"UTC\" Name=\"(UTC) Coordinated Universal Time\"/>";
    Ok(vec![Ok(format!("<m:TimeZoneDefinitions>{zone}</m:TimeZoneDefinitions>"))])
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
