//! Exchange Web Services: SOAP over `/EWS/Exchange.asmx`. The operation is the element in the Body; SOAPAction does not
//! count. Elements stand in the order of Microsoft's schema.

mod access;
mod convert_id;
mod exchanges;
mod find_item;
mod folders;
mod items;
mod message;
mod restriction;
mod send;
mod sync_folder_items;
mod xml;

use roxmltree::Node;

pub use exchanges::{Exchange, Exchanges};

use self::{
    access::Caller,
    xml::{child, escape},
};
use crate::{
    http::{Request, Response},
    state::{Audience, State},
};

const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const TYPES: &str = "http://schemas.microsoft.com/exchange/services/2006/types";
const MESSAGES: &str = "http://schemas.microsoft.com/exchange/services/2006/messages";
const ERRORS: &str = "http://schemas.microsoft.com/exchange/services/2006/errors";

/// Schema versions in their order, and the build number of a server that has it.
const VERSIONS: [(&str, [u16; 4]); 11] = [
    ("Exchange2007", [8, 0, 0, 0]),
    ("Exchange2007_SP1", [8, 1, 240, 5]),
    ("Exchange2010", [14, 0, 639, 20]),
    ("Exchange2010_SP1", [14, 1, 218, 13]),
    ("Exchange2010_SP2", [14, 2, 247, 5]),
    ("Exchange2013", [15, 0, 516, 29]),
    ("Exchange2013_SP1", [15, 0, 847, 31]),
    ("Exchange2015", [15, 1, 225, 42]),
    ("Exchange2016", [15, 1, 2507, 6]),
    ("V2016_10_10", [15, 20, 0, 0]),
    ("V2017_07_11", [15, 20, 0, 0]),
];

/// Why one item, or a whole request, is refused: a ResponseCode and its MessageText.
#[derive(Debug)]
pub struct Refusal {
    code: String,
    text: String,
}

fn refuse(code: &str, text: impl Into<String>) -> Refusal {
    Refusal { code: code.into(), text: text.into() }
}

/// Of one ResponseMessage: what follows ResponseCode.
type Outcome = Result<String, Refusal>;
/// One per item or folder; the refusal becomes a SOAP fault.
type Answer = Result<Vec<Outcome>, Refusal>;
type Operation = fn(&Caller<'_>, Node<'_, '_>) -> Answer;

pub fn handle(state: &State, request: &Request) -> Response {
    answer_with(state, request, None)
}

/// Every item of the request is refused with this ResponseCode, inside HTTP 200: an ordered fault. `only`: those whose
/// message holds this text.
pub fn refused(state: &State, request: &Request, code: &str, only: Option<&str>) -> Response {
    answer_with(state, request, Some((code, only)))
}

fn answer_with(state: &State, request: &Request, refused: Option<(&str, Option<&str>)>) -> Response {
    if !state.config.ews_enabled {
        return Response::html(403, "<html><body>EWS is disabled for this tenant.</body></html>");
    }
    if !request.path.eq_ignore_ascii_case("/EWS/Exchange.asmx") {
        return Response::html(404, "<html><body>Not found</body></html>");
    }
    let bearer = match state.oauth.bearer(state, request, Audience::Outlook) {
        Ok(bearer) if bearer.may(&["EWS.AccessAsUser.All", "full_access_as_app"]) => bearer,
        Ok(_) => {
            let why = "2000008;reason=\"The token contains no permissions, or permissions can not be understood.\"";
            return Response::new(401).header("x-ms-diagnostics", why).header("WWW-Authenticate", "Bearer");
        }
        Err(response) => return response,
    };
    if request.method != "POST" {
        return Response::new(405).header("Allow", "POST");
    }
    let text = String::from_utf8_lossy(&request.body);
    let answer = xml::parse(text.trim_start_matches('\u{feff}'))
        .map_err(|error| refuse("ErrorSchemaValidation", format!("The request failed schema validation: {error}")))
        .and_then(|document| {
            let envelope = document.root_element();
            let body = child(envelope, "Body").and_then(|body| xml::elements(body).next());
            let body = body.ok_or_else(|| invalid("there is no operation in the Body"))?;
            let header = child(envelope, "Header");
            version(state, header)?;
            let name = body.tag_name().name().to_owned();
            let operation = operation(&name)
                .filter(|_| body.tag_name().namespace() == Some(MESSAGES))
                .ok_or_else(|| refuse("ErrorInvalidRequest", format!("{name} is not served here.")))?;
            let mut caller = Caller::new(state, &bearer, header)?;
            let outcomes = match refused {
                None => operation(&caller, body)?,
                Some((code, Some(only))) => {
                    caller.refused = Some((code.to_owned(), only.to_owned()));
                    operation(&caller, body)?
                }
                Some((code, None)) => {
                    let refused = || Err(refuse(code, "A fault that was ordered."));
                    (0..targets(body).max(1)).map(|_| refused()).collect()
                }
            };
            Ok(response(&name, outcomes))
        });
    let (status, body) = match answer {
        Ok(body) => (200, body),
        Err(refusal) => (500, fault(&refusal)),
    };
    let server = server_version(state);
    let answer = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><s:Envelope xmlns:s=\"{SOAP}\"><s:Header>{server}</s:Header>\
         <s:Body>{body}</s:Body></s:Envelope>"
    );
    state.ews.keep(&text, &answer, status);
    Response::xml(status, answer)
}

fn operation(name: &str) -> Option<Operation> {
    Some(match name {
        "GetFolder" => folders::get_folder,
        "FindFolder" => folders::find_folder,
        "CreateFolder" => folders::create_folder,
        "SyncFolderHierarchy" => folders::sync_folder_hierarchy,
        "SyncFolderItems" => sync_folder_items::sync_folder_items,
        "FindItem" => find_item::find_item,
        "GetItem" => items::get_item,
        "UpdateItem" => items::update_item,
        "MoveItem" => items::move_item,
        "CopyItem" => items::copy_item,
        "DeleteItem" => items::delete_item,
        "CreateItem" => send::create_item,
        "SendItem" => send::send_item,
        "ConvertId" => convert_id::convert_id,
        "GetServerTimeZones" => convert_id::get_server_time_zones,
        _ => return None,
    })
}

/// How many ResponseMessages a request gets.
fn targets(body: Node<'_, '_>) -> usize {
    let names = ["ItemIds", "ItemChanges", "Items", "FolderIds", "ParentFolderIds", "SourceIds", "Folders"];
    names.iter().find_map(|name| child(body, name)).map_or(1, |list| xml::elements(list).count())
}

/// What a schema validator would say.
fn invalid(what: &str) -> Refusal {
    refuse("ErrorSchemaValidation", format!("The request failed schema validation: {what}."))
}

/// Newer than this server, or never heard of: refused.
fn version(state: &State, header: Option<Node<'_, '_>>) -> Result<(), Refusal> {
    let asked = header.and_then(|header| child(header, "RequestServerVersion"));
    let Some(asked) = asked.and_then(|asked| asked.attribute("Version")) else { return Ok(()) };
    let place = |wanted: &str| VERSIONS.iter().position(|(name, _)| *name == wanted);
    match (place(asked), place(&state.config.ews_version)) {
        (Some(asked), Some(own)) if asked <= own => Ok(()),
        _ => Err(refuse("ErrorInvalidServerVersion", "The specified server version is invalid.")),
    }
}

fn server_version(state: &State) -> String {
    let name = &state.config.ews_version;
    let [major, minor, build, revision] =
        VERSIONS.iter().find(|(known, _)| known == name).map_or([15, 1, 0, 0], |(_, build)| *build);
    format!(
        "<h:ServerVersionInfo MajorVersion=\"{major}\" MinorVersion=\"{minor}\" MajorBuildNumber=\"{build}\" \
         MinorBuildNumber=\"{revision}\" Version=\"{}\" xmlns:h=\"{TYPES}\"/>",
        escape(name)
    )
}

fn response(name: &str, outcomes: Vec<Outcome>) -> String {
    let on_error = match name {
        "GetItem" | "CreateItem" | "UpdateItem" | "MoveItem" | "CopyItem" => "<m:Items/>",
        "SyncFolderItems" => "<m:SyncState/><m:IncludesLastItemInRange>true</m:IncludesLastItemInRange>",
        "SyncFolderHierarchy" => "<m:SyncState/><m:IncludesLastFolderInRange>true</m:IncludesLastFolderInRange>",
        "GetServerTimeZones" => "<m:TimeZoneDefinitions/>",
        _ => "",
    };
    let message = |outcome: Outcome| match outcome {
        Ok(rest) => format!(
            "<m:{name}ResponseMessage ResponseClass=\"Success\"><m:ResponseCode>NoError</m:ResponseCode>{rest}\
             </m:{name}ResponseMessage>"
        ),
        Err(Refusal { code, text }) => format!(
            "<m:{name}ResponseMessage ResponseClass=\"Error\"><m:MessageText>{}</m:MessageText>\
             <m:ResponseCode>{}</m:ResponseCode><m:DescriptiveLinkKey>0</m:DescriptiveLinkKey>{on_error}\
             </m:{name}ResponseMessage>",
            escape(&text),
            escape(&code)
        ),
    };
    let messages: String = outcomes.into_iter().map(message).collect();
    format!(
        "<m:{name}Response xmlns:m=\"{MESSAGES}\" xmlns:t=\"{TYPES}\"><m:ResponseMessages>{messages}\
         </m:ResponseMessages></m:{name}Response>"
    )
}

fn fault(refusal: &Refusal) -> String {
    let (code, text) = (escape(&refusal.code), escape(&refusal.text));
    format!(
        "<s:Fault><faultcode xmlns:a=\"{TYPES}\">a:{code}</faultcode><faultstring xml:lang=\"en-US\">{text}\
         </faultstring><detail><e:ResponseCode xmlns:e=\"{ERRORS}\">{code}</e:ResponseCode>\
         <e:Message xmlns:e=\"{ERRORS}\">{text}</e:Message></detail></s:Fault>"
    )
}
