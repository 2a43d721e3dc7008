//! From a checked form to the [`Account`].

use lettre::Address;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::{
    account::{
        Account, Action, CertificateRef, Client, ClientAuthentication, Direction, Endpoint, Fetching, Former,
        GrantType, Mechanism, Protocol, ProxyForm, Sending, Since, TlsMode,
    },
    advanced::ClientCertificate,
    check::{Checked, MICROSOFT_HOSTS},
    form::Connection,
    incoming::Incoming,
    outgoing::{Outgoing, SUBMISSION_PORT, SUBMISSIONS_PORT},
    pattern::moment,
    preset,
    secret_ref::SecretRef,
};
use crate::{error::Fault, limits, secret::Secret};

/// Where Microsoft Graph and the Gmail API are, unless Connect URL or the cloud of the Access Token URL says otherwise.
const GRAPH_URL: &str = "https://graph.microsoft.com/v1.0";
const GMAIL_URL: &str = "https://gmail.googleapis.com/gmail/v1";

/// Who writes Authentication-Results where these tokens are for: Exchange Online writes no authserv-id.
fn known_authserv_ids(access_token_url: &str) -> Vec<String> {
    let url = Url::parse(access_token_url).ok();
    let id = match url.as_ref().and_then(Url::host_str) {
        Some(host) if MICROSOFT_HOSTS.contains(&host) => "-",
        Some("oauth2.googleapis.com" | "accounts.google.com" | "www.googleapis.com") => "mx.google.com",
        _ => return Vec::new(),
    };
    vec![id.to_owned()]
}

/// # Errors
/// None for a checked form; if check and types ever disagree, one fault that says so.
pub(super) fn incoming(checked: Checked) -> Result<Account, Vec<Fault>> {
    let form: Incoming = typed(checked.form)?;
    let advanced = form.advanced;
    let mut folders = Vec::new();
    for folder in advanced.folders {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    let fetching = Fetching {
        email_addresses: form
            .email_addresses
            .iter()
            .map(|address| self::address("/email_addresses", address))
            .collect::<Result<_, _>>()?,
        interval_minutes: form.fetch_interval_minutes,
        disable_new_request_creation: form.disable_new_request_creation,
        folders,
        since: match advanced.fetch_since.as_str() {
            "all" => Since::Everything,
            text => moment(text).map_or(Since::Now, Since::Moment),
        },
        moved_from: match advanced.moved_from.as_deref() {
            Some("imap") => Some(Former::Imap),
            Some("ews") => Some(Former::Ews),
            _ => None,
        },
        after_import: action(&advanced.after_import, advanced.processed_folder),
        after_refusal: action(&advanced.after_refusal, advanced.error_folder),
        subject_tag: advanced.subject_tag,
        reply_delimiter: advanced.reply_delimiter,
        trusted_authserv_ids: match advanced.trusted_authserv_ids {
            none if none.is_empty() => known_authserv_ids(&form.access_token_url),
            named => named,
        },
        new_requests_from: advanced.new_requests_from.iter().map(|sender| sender.to_lowercase()).collect(),
    };
    Ok(Account {
        direction: Direction::Incoming,
        label: None,
        protocol: match form.connection_protocol {
            Connection::Mail => Protocol::Imap { server: endpoint(form.server_name, form.port)? },
            other => http(other, form.connect_url, &form.access_token_url, &form.scope)?,
        },
        consenting_user: advanced.consenting_user.unwrap_or_else(|| form.username.clone()),
        username: form.username,
        client: ClientForm {
            client_id: form.client_id,
            client_secret: checked.client_secret,
            client_secret_place: form.client_secret,
            client_authentication: advanced.client_authentication,
            authorize_url: form.authorize_url,
            access_token_url: form.access_token_url,
            scope: form.scope,
            redirect_url: form.redirect_url,
            issuer: advanced.issuer,
            revocation_url: advanced.revocation_url,
            userinfo_url: advanced.userinfo_url,
            jwks_url: advanced.jwks_url,
            grant: advanced.grant,
            client_certificate: advanced.client_certificate,
            service_account: advanced.service_account,
            device_authorization_url: advanced.device_authorization_url,
            admin_consent_url: advanced.admin_consent_url,
            client_secret_expires: advanced.client_secret_expires,
            authorize_parameters: advanced.authorize_parameters.into_iter().collect(),
        }
        .prove()?,
        email_debug: form.enable_email_debug,
        mechanism: mechanism(&advanced.sasl_mechanism),
        ca_file: advanced.ca_file.map(Into::into),
        proxy: ProxyForm {
            proxy: advanced.proxy,
            proxy_user: advanced.proxy_user,
            proxy_password: advanced.proxy_password,
        },
        fetching: Some(fetching),
        sending: None,
    })
}

/// # Errors
/// As [`incoming`].
pub(super) fn outgoing(checked: Checked) -> Result<Account, Vec<Fault>> {
    let form: Outgoing = typed(checked.form)?;
    let advanced = form.advanced;
    let is_microsoft = Url::parse(&form.access_token_url)
        .is_ok_and(|url| url.host_str().is_some_and(|host| MICROSOFT_HOSTS.contains(&host)));
    let sending = Sending {
        smtp_user: advanced
            .smtp_user
            .or_else(|| advanced.consenting_user.clone().filter(|_| is_microsoft))
            .unwrap_or_else(|| form.username.clone()),
        from: match &advanced.from_address {
            Some(from) => address("/advanced/from_address", from)?,
            None => address("/username", &form.username)?,
        },
        automatic_mails_per_day: advanced.automatic_mails_per_day,
        messages_per_minute: advanced
            .messages_per_minute
            .or_else(|| is_microsoft.then_some(limits::MICROSOFT_MESSAGES_PER_MINUTE)),
        app_messages_per_minute: advanced.app_messages_per_minute,
        sent_folder_server: advanced.sent_folder_server.map(|host| Endpoint { host, port: advanced.sent_folder_port }),
        sender_name: form.sender_name,
        reply_to: form.reply_to.as_deref().map(|reply_to| address("/reply_to", reply_to)).transpose()?,
    };
    Ok(Account {
        direction: Direction::Outgoing,
        label: None,
        protocol: match form.connection_protocol {
            Connection::Mail => {
                // Without a protocol the port decides: 465 has no other meaning (RFC 8314 section 7.3).
                let implicit = match form.protocol.as_deref() {
                    Some(protocol) => protocol == "SMTPS",
                    None => form.port == Some(SUBMISSIONS_PORT),
                };
                let (tls, usual) =
                    if implicit { (TlsMode::Implicit, SUBMISSIONS_PORT) } else { (TlsMode::StartTls, SUBMISSION_PORT) };
                let port = form.port.unwrap_or(usual);
                Protocol::Smtp {
                    server: endpoint(form.server_name, port)?,
                    alternate: form
                        .alternate_server_name
                        .map(|host| Endpoint { host, port: advanced.alternate_port.unwrap_or(port) }),
                    tls,
                }
            }
            other => http(other, form.connect_url, &form.access_token_url, &form.scope)?,
        },
        consenting_user: advanced.consenting_user.unwrap_or_else(|| form.username.clone()),
        username: form.username,
        client: ClientForm {
            client_id: form.client_id,
            client_secret: checked.client_secret,
            client_secret_place: form.client_secret,
            client_authentication: advanced.client_authentication,
            authorize_url: form.authorize_url,
            access_token_url: form.access_token_url,
            scope: form.scope,
            redirect_url: form.redirect_url,
            issuer: advanced.issuer,
            revocation_url: advanced.revocation_url,
            userinfo_url: advanced.userinfo_url,
            jwks_url: advanced.jwks_url,
            grant: advanced.grant,
            client_certificate: advanced.client_certificate,
            service_account: advanced.service_account,
            device_authorization_url: advanced.device_authorization_url,
            admin_consent_url: advanced.admin_consent_url,
            client_secret_expires: advanced.client_secret_expires,
            authorize_parameters: advanced.authorize_parameters.into_iter().collect(),
        }
        .prove()?,
        email_debug: false,
        mechanism: mechanism(&advanced.sasl_mechanism),
        ca_file: advanced.ca_file.map(Into::into),
        proxy: ProxyForm {
            proxy: advanced.proxy,
            proxy_user: advanced.proxy_user,
            proxy_password: advanced.proxy_password,
        },
        fetching: None,
        sending: Some(sending),
    })
}

/// The fields of the OAuth client, which both forms have.
struct ClientForm {
    client_id: String,
    client_secret: Option<Secret>,
    client_secret_place: Option<SecretRef>,
    client_authentication: String,
    authorize_url: String,
    access_token_url: String,
    scope: String,
    redirect_url: String,
    issuer: Option<String>,
    revocation_url: Option<String>,
    userinfo_url: Option<String>,
    jwks_url: Option<String>,
    grant: String,
    client_certificate: Option<ClientCertificate>,
    service_account: Option<SecretRef>,
    device_authorization_url: Option<String>,
    admin_consent_url: Option<String>,
    client_secret_expires: Option<String>,
    authorize_parameters: Vec<(String, String)>,
}

impl ClientForm {
    fn prove(self) -> Result<Client, Vec<Fault>> {
        let optional = |pointer, text: Option<String>| text.map(|text| url(pointer, &text)).transpose();
        Ok(Client {
            grant: GrantType::from_name(&self.grant).unwrap_or_default(),
            client_id: self.client_id,
            client_secret: self.client_secret,
            client_secret_place: self
                .client_secret_place
                .filter(|place| matches!(place, SecretRef::File(_)))
                .map(Into::into),
            client_authentication: match self.client_authentication.as_str() {
                "client_secret_basic" => ClientAuthentication::Basic,
                "client_secret_post" => ClientAuthentication::Post,
                _ => ClientAuthentication::Automatic,
            },
            client_secret_expires: self.client_secret_expires.as_deref().and_then(moment),
            certificate: self.client_certificate.map(|reference| CertificateRef {
                certificate: reference.certificate.into(),
                private_key: reference.private_key.into(),
                key_id: reference.key_id,
                names_issuer: reference.audience.as_deref() == Some("issuer"),
            }),
            service_account: self.service_account.map(Into::into),
            authorize_url: url("/authorize_url", &self.authorize_url)?,
            token_url: url("/access_token_url", &self.access_token_url)?,
            scopes: self.scope.split_ascii_whitespace().map(str::to_owned).collect(),
            redirect_url: url("/redirect_url", &self.redirect_url)?,
            redirect_text: self.redirect_url,
            issuer: self.issuer,
            device_authorization_url: optional("/advanced/device_authorization_url", self.device_authorization_url)?,
            admin_consent_url: optional("/advanced/admin_consent_url", self.admin_consent_url)?,
            revocation_url: optional("/advanced/revocation_url", self.revocation_url)?,
            userinfo_url: optional("/advanced/userinfo_url", self.userinfo_url)?,
            jwks_url: optional("/advanced/jwks_url", self.jwks_url)?,
            authorize_parameters: self.authorize_parameters,
        })
    }
}

fn typed<T: DeserializeOwned>(form: serde_json::Map<String, Value>) -> Result<T, Vec<Fault>> {
    // The message of serde may repeat a value, and a value may be a secret.
    serde_json::from_value(Value::Object(form)).map_err(|_| disagreement(""))
}

fn http(
    connection: Connection,
    connect_url: Option<String>,
    token_url: &str,
    scope: &str,
) -> Result<Protocol, Vec<Fault>> {
    let url = |usual: &str| self::url("/connect_url", connect_url.as_deref().unwrap_or(usual));
    match connection {
        Connection::Ews => Ok(Protocol::Ews { url: url("")? }),
        Connection::Graph => {
            // Each national cloud has a Graph of its own, which takes no tokens of the others.
            let of_cloud = Url::parse(token_url).ok().and_then(|token_url| preset::graph_url(&token_url, scope));
            let mut base_url = url(of_cloud.unwrap_or(GRAPH_URL))?;
            // People write the host alone.
            if base_url.path() == "/" {
                base_url.set_path("/v1.0");
            }
            Ok(Protocol::Graph { base_url })
        }
        Connection::Gmail => Ok(Protocol::Gmail { base_url: url(GMAIL_URL)? }),
        Connection::Mail => Err(disagreement("/connection_protocol")),
    }
}

fn endpoint(host: Option<String>, port: u16) -> Result<Endpoint, Vec<Fault>> {
    host.map(|host| Endpoint { host, port }).ok_or_else(|| disagreement("/server_name"))
}

fn url(pointer: &str, text: &str) -> Result<Url, Vec<Fault>> {
    Url::parse(text).map_err(|_| disagreement(pointer))
}

fn address(pointer: &str, text: &str) -> Result<Address, Vec<Fault>> {
    text.parse().map_err(|_| disagreement(pointer))
}

fn action(name: &str, folder: Option<String>) -> Action {
    match (name, folder) {
        ("mark_seen", _) => Action::MarkSeen,
        ("delete", _) => Action::Delete,
        ("move", Some(folder)) => Action::Move { folder },
        _ => Action::Leave,
    }
}

fn mechanism(name: &str) -> Option<Mechanism> {
    match name {
        "XOAUTH2" => Some(Mechanism::Xoauth2),
        "OAUTHBEARER" => Some(Mechanism::Oauthbearer),
        _ => None,
    }
}

fn disagreement(pointer: &str) -> Vec<Fault> {
    let message =
        "It passed the check and could still not be understood; please report this as a fault of the library.";
    vec![Fault { pointer: pointer.to_owned(), label: "Settings".to_owned(), message: message.to_owned() }]
}
