//! What is known about well-known providers, from `schema/presets.json`. Presets fill what a person left empty and
//! never overwrite anything.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::{
    account::{Direction, GrantType},
    filling::{Case, Filling, Test},
    form::{Connection, Field, Rule, fields, section},
};

/// One provider.
#[derive(Clone, Debug, Deserialize)]
pub struct Preset {
    /// Value of `advanced.provider`.
    pub id: String,
    /// For a list that a host shows.
    pub label: String,
    /// Hosts of this provider's token endpoints: by them it is recognised when nobody named it.
    token_hosts: Vec<String>,
    /// Fields of the form that are the same for every protocol.
    oauth: Map<String, Value>,
    /// Fields of `advanced`. `{tenant}` stands for the tenant in the Access Token URL, when that is a GUID; else a
    /// value with it is left out, since `common` and `organizations` have no issuer of their own. `{any_tenant}`
    /// stands for whatever is there, and `{organisation}` for that of an organisation: personal accounts
    /// have no administrator, and `common` is not served where one consents.
    #[serde(default)]
    advanced: Map<String, Value>,
    /// Scope by connection protocol for the grant client_credentials, where it is another one.
    #[serde(default)]
    application_scope: BTreeMap<String, String>,
    /// The same for a shared mailbox, where somebody else's consent opens it.
    #[serde(default)]
    shared_scope: BTreeMap<String, String>,
    incoming: BTreeMap<String, Map<String, Value>>,
    outgoing: BTreeMap<String, Map<String, Value>>,
}

static PRESETS: LazyLock<Vec<Preset>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../../schema/presets.json")).unwrap_or_default());

/// All presets, in the order in which a host may list them. "generic" is not among them: it fills nothing.
pub fn all() -> &'static [Preset] {
    &PRESETS
}

/// Fills what the preset named in `advanced.provider` knows and the document leaves out or empty: URLs, scope, server,
/// protocol and port. When nobody is named but the Access Token URL is a well-known one, only `advanced` is filled
/// (issuer, revocation, user info, keys, authorize parameters). A document of the wrong shape is left as it is.
pub fn fill(direction: Direction, document: &mut Value) {
    let Value::Object(form) = &*document else { return };
    let named =
        form.get("advanced").and_then(|advanced| advanced.get("provider")).and_then(Value::as_str).map(str::to_owned);
    let filling = named.as_deref().and_then(by_id).zip(connection(direction, form));
    if let Some(filling) = filling.and_then(|(preset, connection)| preset.filling(direction, connection)) {
        // Twice: what is filled in may decide what else there is.
        for _ in 0..2 {
            for (pointer, value) in filling.known(document) {
                put(direction, document, &pointer, value);
            }
        }
    }
    let Value::Object(form) = document else { return };
    let Some(url) = form.get("access_token_url").and_then(Value::as_str).and_then(|url| Url::parse(url).ok()) else {
        return;
    };
    // Also when a provider is named: whoever overwrites its URLs has another issuer.
    let owner = match &named {
        Some(id) => by_id(id).filter(|preset| preset.owns(&url)),
        None => all().iter().find(|preset| preset.owns(&url)),
    };
    if let Some(preset) = owner
        && let Value::Object(advanced) = form.entry("advanced").or_insert_with(|| Value::Object(Map::new()))
    {
        for (name, value) in &preset.advanced {
            if unset(section(direction, "/advanced"), advanced, name)
                && let Some(value) = with_tenant(value, &url)
            {
                advanced.insert(name.clone(), value);
            }
        }
    }
}

/// What `describe` says of presets: id, label, and by direction and connection protocol what is filled into the form.
pub fn described() -> Value {
    let forms = |preset: &Preset, direction| {
        let offered = Connection::ALL.into_iter().filter_map(|connection| {
            Some((connection.name(direction).to_owned(), json!(preset.filling(direction, connection)?)))
        });
        Value::Object(offered.collect())
    };
    let presets = all().iter().map(|preset| {
        json!({
            "id": preset.id, "label": preset.label,
            "incoming": forms(preset, Direction::Incoming), "outgoing": forms(preset, Direction::Outgoing),
        })
    });
    presets.collect()
}

/// Ids of the presets that fill this field of the form with this connection protocol.
pub fn fillers(direction: Direction, connection: Connection, name: &str) -> Vec<&'static str> {
    let fills = |preset: &&Preset| {
        preset
            .fields(direction, connection)
            .is_some_and(|own| own.contains_key(name) || preset.oauth.contains_key(name))
    };
    all().iter().filter(fills).map(|preset| preset.id.as_str()).collect()
}

/// Where Microsoft Graph is in the cloud that issues tokens here; where two clouds share that, the one whose Graph the scope
/// names.
pub(super) fn graph_url(token_url: &Url, scope: &str) -> Option<&'static str> {
    let urls: Vec<&str> = all()
        .iter()
        .filter(|preset| preset.owns(token_url))
        .filter_map(|preset| preset.fields(Direction::Incoming, Connection::Graph)?.get("connect_url")?.as_str())
        .collect();
    let named = |url: &&&str| {
        let origin = url.trim_end_matches("/v1.0");
        scope.split_ascii_whitespace().any(|scope| scope.starts_with(origin))
    };
    urls.iter().find(named).or(urls.first()).copied()
}

/// Is there any preset that fills this field of the form?
pub(super) fn may_fill(name: &str) -> bool {
    all().iter().any(|preset| {
        let own = preset.incoming.values().chain(preset.outgoing.values());
        preset.oauth.contains_key(name) || own.into_iter().any(|fields| fields.contains_key(name))
    })
}

impl Preset {
    fn fields(&self, direction: Direction, connection: Connection) -> Option<&Map<String, Value>> {
        let by_connection = match direction {
            Direction::Incoming => &self.incoming,
            Direction::Outgoing => &self.outgoing,
        };
        by_connection.get(connection.name(direction))
    }

    /// All that this preset fills into the form with this connection protocol; none when it does not offer it.
    fn filling(&self, direction: Direction, connection: Connection) -> Option<Filling> {
        let own = self.fields(direction, connection)?;
        let name = connection.name(direction);
        let at_root = |(name, value): (&String, &Value)| (format!("/{name}"), value.clone());
        let scope = |scope: &String| Map::from_iter([("/scope".to_owned(), scope.as_str().into())]);
        let mut cases = Vec::new();
        if let Some(shared) = self.shared_scope.get(name) {
            cases.push(Case::new("/advanced/consenting_user", Test::DiffersFrom("/username"), scope(shared)));
        }
        if let Some(application) = self.application_scope.get(name) {
            let grant = GrantType::ClientCredentials.name().to_owned();
            cases.push(Case::new("/advanced/grant", Test::Is(grant), scope(application)));
        }
        // Whoever overwrites the URLs of a provider has another issuer. What needs the tenant is filled in by `fill`.
        let has_tenant = |value: &Value| value.as_str().is_some_and(|text| text.contains('{'));
        let advanced: Map<_, _> = self
            .advanced
            .iter()
            .filter(|(_, value)| !has_tenant(value))
            .map(|(name, value)| (format!("/advanced/{name}"), value.clone()))
            .collect();
        if !advanced.is_empty() {
            cases.push(Case::new("/access_token_url", Test::HostIn(self.token_hosts.clone()), advanced));
        }
        cases.extend(self.sent_folder(direction, connection));
        let together = if own.contains_key("protocol") { vec!["/protocol", "/port"] } else { Vec::new() };
        Some(Filling { fields: self.oauth.iter().chain(own).map(at_root).collect(), cases, together })
    }

    /// Mail that goes out by this provider's server lies in its sent folder, and its tokens open that too.
    fn sent_folder(&self, direction: Direction, connection: Connection) -> Option<Case> {
        if (direction, connection) != (Direction::Outgoing, Connection::Mail) {
            return None;
        }
        let server = |direction| self.fields(direction, Connection::Mail)?.get("server_name");
        let sends = server(Direction::Outgoing)?.as_str()?.to_owned();
        let holds = ("/advanced/sent_folder_server".to_owned(), server(Direction::Incoming)?.clone());
        Some(Case::new("/server_name", Test::Is(sends), Map::from_iter([holds])))
    }

    pub fn token_hosts(&self) -> impl Iterator<Item = &str> {
        self.token_hosts.iter().map(String::as_str)
    }

    fn owns(&self, token_url: &Url) -> bool {
        token_url.host_str().is_some_and(|host| self.token_hosts.iter().any(|own| own == host))
    }
}

fn by_id(id: &str) -> Option<&'static Preset> {
    all().iter().find(|preset| preset.id == id)
}

fn connection(direction: Direction, form: &Map<String, Value>) -> Option<Connection> {
    Connection::from_name(direction, form.get("connection_protocol")?.as_str()?)
}

/// Puts it where nothing is. A section that the document leaves out stays out.
fn put(direction: Direction, document: &mut Value, pointer: &str, value: Value) {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    let known = if parent.is_empty() { fields(direction) } else { section(direction, parent) };
    if let Some(Value::Object(part)) = document.pointer_mut(parent)
        && unset(known, part, name)
    {
        part.insert(name.to_owned(), value);
    }
}

/// Left out, or an empty text where a text is expected.
fn unset(fields: &[Field], form: &Map<String, Value>, name: &str) -> bool {
    let is_text = || fields.iter().any(|field| field.name == name && matches!(field.rule, Rule::Text(_)));
    form.get(name).is_none_or(|value| value.as_str() == Some("") && is_text())
}

fn with_tenant(value: &Value, token_url: &Url) -> Option<Value> {
    match value {
        Value::String(text) if text.contains("{tenant}") => {
            let tenant = token_url.path_segments()?.next()?;
            is_guid(tenant).then(|| text.replace("{tenant}", tenant).into())
        }
        Value::String(text) if text.contains("{any_tenant}") => {
            let tenant = token_url.path_segments()?.next()?;
            Some(text.replace("{any_tenant}", tenant).into())
        }
        Value::String(text) if text.contains("{organisation}") => {
            let tenant = match token_url.path_segments()?.next()? {
                "consumers" => return None,
                "common" => "organizations",
                tenant => tenant,
            };
            Some(text.replace("{organisation}", tenant).into())
        }
        other => Some(other.clone()),
    }
}

fn is_guid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Protocol, advanced::PROVIDERS, parse_incoming, parse_outgoing};

    #[test]
    fn the_file_and_the_list_of_providers_agree() {
        let ids: Vec<&str> = all().iter().map(|preset| preset.id.as_str()).collect();
        assert_eq!(ids, PROVIDERS[..PROVIDERS.len() - 1]);
    }

    #[test]
    fn whatever_a_preset_fills_is_a_valid_form() {
        for preset in all() {
            for connection in Connection::ALL {
                for (direction, known) in
                    [(Direction::Incoming, &preset.incoming), (Direction::Outgoing, &preset.outgoing)]
                {
                    let name = connection.name(direction);
                    if !known.contains_key(name) {
                        continue;
                    }
                    let mut form = json!({
                        "connection_protocol": name, "username": "a@example.com", "client_id": "x",
                        "redirect_url": "http://localhost/cb", "advanced": {"provider": preset.id},
                    });
                    let faults = match direction {
                        Direction::Incoming => {
                            form["email_addresses"] = json!(["a@example.com"]);
                            parse_incoming(&form).err()
                        }
                        Direction::Outgoing => parse_outgoing(&form).err(),
                    };
                    assert_eq!(faults, None, "{} {name}", preset.id);
                }
            }
        }
    }

    /// A form as a host fills it: by what `describe` says alone, and with no provider named.
    fn filled_by_host(filling: &Value, mut form: Value) -> Value {
        let fill = |fields: &Value, form: &mut Value| {
            for (pointer, value) in fields.as_object().unwrap() {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                form.pointer_mut(parent).unwrap()[name] = value.clone();
            }
        };
        fill(&filling["fields"], &mut form);
        for case in filling["cases"].as_array().unwrap() {
            let when = &case["when"];
            let text = |pointer: &Value| form.pointer(pointer.as_str().unwrap()).and_then(Value::as_str);
            let here = text(&when["pointer"]);
            let applies = match (when.get("is"), when.get("differs_from"), when.get("host_in")) {
                (Some(wanted), None, None) => here == wanted.as_str(),
                (None, Some(other), None) => here.is_some() && here != text(other),
                (None, None, Some(hosts)) => {
                    let host = here.and_then(|url| Some(Url::parse(url).ok()?.host_str()?.to_owned()));
                    hosts.as_array().unwrap().contains(&host.into())
                }
                _ => panic!("an unknown condition: {when}"),
            };
            if applies {
                fill(&case["fields"], &mut form);
            }
        }
        form
    }

    #[test]
    fn every_preset_of_describe_makes_settings_that_the_library_accepts_and_fills_alike() {
        let described = described();
        let mut forms = 0;
        for preset in described.as_array().unwrap() {
            for direction in [Direction::Incoming, Direction::Outgoing] {
                for (connection, filling) in preset.pointer(direction.pointer()).unwrap().as_object().unwrap() {
                    for advanced in [
                        json!({}),
                        json!({"consenting_user": "anna@example.com"}),
                        json!({"grant": "client_credentials"}),
                    ] {
                        let mut typed = json!({
                            "connection_protocol": connection, "username": "desk@example.com", "client_id": "x",
                            "redirect_url": "http://localhost/cb", "advanced": advanced, "client_secret": "s",
                        });
                        if direction == Direction::Incoming {
                            typed["email_addresses"] = json!(["desk@example.com"]);
                        }
                        let mut by_host = filled_by_host(filling, typed.clone());
                        let mut by_library = typed;
                        by_library["advanced"]["provider"] = preset["id"].clone();
                        fill(direction, &mut by_library);
                        fill(direction, &mut by_host);
                        by_host["advanced"]["provider"] = preset["id"].clone();
                        assert_eq!(by_host, by_library, "{connection}");
                        let is_application = advanced.get("grant").is_some();
                        if is_application && by_host["access_token_url"].as_str().unwrap().contains("/common/") {
                            let url = by_host["access_token_url"].as_str().unwrap().replace("common", "a.test");
                            by_host["access_token_url"] = url.into();
                        }
                        let faults = match direction {
                            Direction::Incoming => parse_incoming(&by_host).err(),
                            Direction::Outgoing => parse_outgoing(&by_host).err(),
                        };
                        assert_eq!(faults, None, "{} {connection} {advanced}", preset["id"]);
                        forms += 1;
                    }
                }
            }
        }
        assert!(forms >= 3 * 2 * all().len(), "{forms}");
    }

    #[test]
    fn what_a_person_wrote_is_never_overwritten() {
        let mut form = json!({
            "connection_protocol": "SMTP/SMTPS", "server_name": "relay.example.com", "protocol": "SMTPS",
            "scope": "", "advanced": {"provider": "google", "authorize_parameters": {}},
        });
        fill(Direction::Outgoing, &mut form);
        assert_eq!(form["server_name"], "relay.example.com");
        assert_eq!(form["port"], Value::Null, "587 would be the port of the other protocol");
        assert_ne!(form["scope"], "");
        assert_eq!(form["advanced"]["authorize_parameters"], json!({}));
        assert_eq!(form["advanced"]["issuer"], "https://accounts.google.com");
    }

    #[test]
    fn an_application_is_given_the_scope_of_applications() {
        let filled = |grant: &str, connection: &str| {
            let advanced = json!({"provider": "microsoft365_us_gov", "grant": grant});
            let mut form = json!({"connection_protocol": connection, "advanced": advanced});
            fill(Direction::Outgoing, &mut form);
            form["scope"].as_str().unwrap().to_owned()
        };
        assert_eq!(filled("client_credentials", "SMTP/SMTPS"), "https://outlook.office365.us/.default");
        assert_eq!(filled("client_credentials", "Microsoft Graph"), "https://graph.microsoft.us/.default");
        assert!(filled("device_code", "SMTP/SMTPS").contains("SMTP.Send"));
    }

    #[test]
    fn each_cloud_has_its_own_graph() {
        let base = |token_host: &str, scope: &str| {
            let form = json!({
                "connection_protocol": "Microsoft Graph", "username": "a@example.com", "client_id": "x",
                "email_addresses": ["a@example.com"], "redirect_url": "http://localhost/cb", "scope": scope,
                "authorize_url": format!("https://{token_host}/t/authorize"),
                "access_token_url": format!("https://{token_host}/t/token"),
            });
            match parse_incoming(&form).unwrap().protocol {
                Protocol::Graph { base_url } => base_url.to_string(),
                _ => panic!("another protocol"),
            }
        };
        for (host, scope, url) in [
            ("login.microsoftonline.com", "https://graph.microsoft.com/Mail.Read", "https://graph.microsoft.com/v1.0"),
            ("login.microsoftonline.us", "Mail.Read offline_access", "https://graph.microsoft.us/v1.0"),
            ("login.microsoftonline.us", "https://graph.microsoft.us/.default", "https://graph.microsoft.us/v1.0"),
            (
                "login.microsoftonline.us",
                "https://dod-graph.microsoft.us/Mail.Read",
                "https://dod-graph.microsoft.us/v1.0",
            ),
            ("login.partner.microsoftonline.cn", "Mail.Read", "https://microsoftgraph.chinacloudapi.cn/v1.0"),
            ("login.example.com", "https://dod-graph.microsoft.us/Mail.Read", "https://graph.microsoft.com/v1.0"),
        ] {
            assert_eq!(base(host, scope), url, "{host} {scope}");
        }
        // The presets say the same.
        for preset in all().iter().filter(|preset| preset.id.starts_with("microsoft365")) {
            let fields = preset.fields(Direction::Incoming, Connection::Graph).unwrap();
            let (url, scope) = (fields["connect_url"].as_str().unwrap(), fields["scope"].as_str().unwrap());
            let token_url = preset.oauth["access_token_url"].as_str().unwrap().parse().unwrap();
            assert_eq!(graph_url(&token_url, scope), Some(url), "{}", preset.id);
        }
    }

    #[test]
    fn a_shared_mailbox_is_given_the_shared_scope() {
        let filled = |advanced: Value| {
            let mut form =
                json!({"connection_protocol": "Microsoft Graph", "username": "desk@a.test", "advanced": advanced});
            fill(Direction::Incoming, &mut form);
            form["scope"].as_str().unwrap().to_owned()
        };
        let shared = filled(json!({"provider": "microsoft365_china", "consenting_user": "anna@a.test"}));
        assert!(shared.starts_with("https://microsoftgraph.chinacloudapi.cn/Mail.ReadWrite.Shared "), "{shared}");
        let own = filled(json!({"provider": "microsoft365", "consenting_user": "Desk@a.test"}));
        assert!(!own.contains("Shared"), "{own}");
        let application =
            json!({"provider": "microsoft365", "consenting_user": "anna@a.test", "grant": "client_credentials"});
        assert_eq!(filled(application), "https://graph.microsoft.com/.default");
    }

    #[test]
    fn device_codes_are_asked_for_at_whatever_tenant_the_form_names() {
        let mut form = json!({"access_token_url": "https://login.microsoftonline.com/common/oauth2/v2.0/token"});
        fill(Direction::Incoming, &mut form);
        let url = "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode";
        assert_eq!(form["advanced"]["device_authorization_url"], url);
    }

    #[test]
    fn an_overwritten_token_url_does_not_keep_the_old_issuer() {
        let mut form = json!({
            "connection_protocol": "POP/IMAP/POPS/IMAPS", "access_token_url": "https://idp.example.com/token",
            "advanced": {"provider": "google"},
        });
        fill(Direction::Incoming, &mut form);
        assert_eq!(form["advanced"], json!({"provider": "google"}));
    }

    #[test]
    fn the_issuer_of_a_tenant_is_known_and_that_of_common_is_not() {
        let tenant = "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb";
        let filled = |segment: &str| {
            let mut form =
                json!({"access_token_url": format!("https://login.microsoftonline.com/{segment}/oauth2/v2.0/token")});
            fill(Direction::Incoming, &mut form);
            form["advanced"]["issuer"].clone()
        };
        assert_eq!(filled(tenant), format!("https://login.microsoftonline.com/{tenant}/v2.0"));
        assert_eq!(filled("common"), Value::Null);
    }
}
