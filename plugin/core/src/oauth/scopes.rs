//! Which scopes a mailbox needs, compared with those that were granted: too few explain a refused login before anybody
//! searches elsewhere, too many are said so that they can be given back.
//!
//! What each provider's protocols need stands in `scopes.json`. At a provider that is not in there, the settings say what
//! is needed. Sources: Microsoft's "Authenticate an IMAP, POP or SMTP connection using OAuth" and Graph permissions
//! reference; Google's "OAuth 2.0 scopes" for Gmail; what each provider documents for its presets.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    error::{Error, Kind},
    settings::{Account, Action, Direction, Protocol, preset},
};

/// They decide about ID tokens and refresh tokens; servers name them back or not as they like.
const SILENT: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// Granted and needed scopes of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// As the provider named them; what was asked for where it does not say.
    pub granted: Vec<String>,
    /// The least with which this account's protocol works.
    pub needed: Vec<String>,
    /// Needed or asked for, and not granted.
    pub missing: Vec<String>,
    /// Granted, and of no use to either direction of this mailbox.
    pub excess: Vec<String>,
    /// Of the missing ones those without which the protocol does not work.
    lacking: Vec<String>,
}

impl Scopes {
    pub fn compare(account: &Account, granted: &[String]) -> Self {
        let granted = &apart(granted, &account.client.scopes);
        let asked: Vec<_> = account.client.scopes.iter().filter(|scope| !is_silent(scope)).collect();
        let granted_list = granted.to_vec();
        // `…/.default` stands for whatever the administrator gave the application (Microsoft).
        if granted.iter().chain(&account.client.scopes).any(|scope| scope.ends_with("/.default")) {
            let asked = || asked.into_iter().cloned().collect();
            let needed = Provider::of(account).and_then(|found| found.of_application(account)).unwrap_or_else(asked);
            return Self { granted: granted_list, needed, ..Self::default() };
        }
        let has = |scope: &str| granted.iter().any(|one| same(one, scope));
        let Some(provider) = Provider::of(account) else {
            let missing: Vec<_> = asked.iter().filter(|scope| !has(scope)).map(|scope| (*scope).clone()).collect();
            let excess = granted.iter().filter(|one| !is_silent(one) && !asked.iter().any(|scope| same(one, scope)));
            return Self {
                needed: asked.iter().map(|scope| (*scope).clone()).collect(),
                excess: excess.cloned().collect(),
                lacking: missing.clone(),
                missing,
                granted: granted_list,
            };
        };
        let own: Vec<_> = provider.needs(account, account.direction);
        let of_mailbox: Vec<_> = [Direction::Incoming, Direction::Outgoing]
            .into_iter()
            .flat_map(|direction| provider.uses(account, direction))
            .collect();
        let lacking: Vec<_> =
            own.iter().filter(|need| !need.is_met_by(granted)).map(|need| need.least().to_owned()).collect();
        let mut missing = lacking.clone();
        for scope in asked {
            // Another name of the same (Microsoft has two for its mail servers) is good as well.
            let met = has(scope) || of_mailbox.iter().any(|need| need.names(scope) && need.is_met_by(granted));
            if !met && !missing.iter().any(|one| same(one, scope)) {
                missing.push(scope.clone());
            }
        }
        let is_of_use = |one: &str| of_mailbox.iter().any(|need| need.any.iter().any(|name| same(name, one)));
        let excess = granted
            .iter()
            .filter(|one| !is_silent(one) && !is_of_use(one) && !provider.harmless.iter().any(|name| same(name, one)));
        Self {
            needed: own.iter().map(|need| need.least().to_owned()).collect(),
            excess: excess.cloned().collect(),
            missing,
            lacking,
            granted: granted_list,
        }
    }

    /// Before anybody consented nothing is missing yet.
    pub(super) fn nothing_granted(self) -> Self {
        Self { needed: self.needed, ..Self::default() }
    }

    pub fn to_json(&self) -> Value {
        json!({"granted": self.granted, "needed": self.needed, "missing": self.missing, "excess": self.excess})
    }

    /// Why a mail server refused a login for which a needed scope is missing: who adds which one where. `None`: the
    /// scopes are not the reason.
    pub fn explain(&self, account: &Account) -> Option<Error> {
        let lacking = self.lacking.join(" ");
        if lacking.is_empty() {
            return None;
        }
        let protocol = protocol(account);
        let place = Provider::of(account)
            .map_or_else(|| "the registration of the client at the provider".to_owned(), |found| found.place);
        let asked = self.lacking.iter().all(|scope| account.client.scopes.iter().any(|one| same(one, scope)));
        Some(if asked && !account.client.grant.is_app_only() {
            Error::new(Kind::ConsentRequired, format!("The provider did not grant {lacking}, which {protocol} needs."))
                .remedy(format!(
                    "Open the consent window again, sign in as {} and leave every box ticked; if it is not offered \
                     there, an administrator adds it to {place}.",
                    account.consenting_user
                ))
        } else {
            Error::new(Kind::AdminRequired, format!("{protocol} needs the scope {lacking}, which was not asked for."))
                .remedy(format!("Add {lacking} to Scope in the settings and to {place}, then connect again."))
        })
    }

    /// Least privilege, for the warnings of a status.
    pub fn note(&self) -> Option<String> {
        (!self.excess.is_empty()).then(|| {
            format!(
                "The provider granted more than this mailbox needs: {}. Remove it from Scope and from the app \
                 registration, then open the consent window again.",
                self.excess.join(" ")
            )
        })
    }
}

/// GitHub, WSO2 and others separate what they granted by commas. RFC 6749 3.3 allows a comma inside a scope: then one that
/// was asked for has it.
fn apart(granted: &[String], asked: &[String]) -> Vec<String> {
    if asked.iter().any(|scope| scope.contains(',')) {
        return granted.to_vec();
    }
    let parts = granted.iter().flat_map(|scope| scope.split(',')).map(str::trim);
    parts.filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
}

fn protocol(account: &Account) -> &'static str {
    match account.protocol {
        Protocol::Imap { .. } => "IMAP",
        Protocol::Smtp { .. } => "SMTP",
        Protocol::Ews { .. } => "EWS",
        Protocol::Graph { .. } => "Microsoft Graph",
        Protocol::Gmail { .. } => "the Gmail API",
    }
}

/// Graph has permissions of their own for mailboxes of somebody else; those of an application are good for all.
fn shared(account: &Account) -> &'static str {
    let own = account.consenting_user.eq_ignore_ascii_case(&account.username);
    let has_them = matches!(account.protocol, Protocol::Graph { .. }) && !account.client.grant.is_app_only();
    if own || !has_them { "" } else { "_shared" }
}

/// The resource that the provider's access tokens are for one at a time, when this scope names it.
pub(super) fn resource_named(scope: &str) -> Option<&'static str> {
    let split = || ROWS.iter().filter(|row| row.splits_tokens);
    let Some((origin, _)) = scope.rsplit_once('/') else {
        // A name alone is Graph's, in settings and in answers.
        let is_known = |row: &&Row, name: &String| {
            let names =
                |listed: &String| listed.strip_prefix(&format!("{{{name}}}/")).is_some_and(|one| same(one, scope));
            row.needs.values().flat_map(|need| &need.any).any(names)
        };
        let nameless = |origins: &Vec<String>| origins.iter().any(String::is_empty);
        return split().find_map(|row| {
            let mut own = row.resources.iter().filter(|(_, origins)| nameless(origins));
            own.find(|(name, _)| is_known(&row, name)).map(|(name, _)| name.as_str())
        });
    };
    let clouds = split().chain(ROWS.iter().filter(|row| split().any(|base| row.like.as_ref() == Some(&base.provider))));
    clouds.flat_map(|row| &row.resources).find_map(|(name, origins)| {
        origins.iter().any(|one| !one.is_empty() && same(one, origin)).then_some(name.as_str())
    })
}

pub(super) fn is_silent(scope: &str) -> bool {
    SILENT.iter().any(|silent| silent.eq_ignore_ascii_case(scope))
}

/// Without case: Microsoft names scopes back in another one.
fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/').eq_ignore_ascii_case(other.trim_end_matches('/'))
}

/// A row of the table.
#[derive(Clone, Deserialize)]
struct Row {
    provider: String,
    /// Takes over what it does not say itself.
    like: Option<String>,
    #[serde(default, rename = "where")]
    place: String,
    /// One access token is for one of `resources`.
    #[serde(default)]
    splits_tokens: bool,
    /// Where the same scope has several names: `{key}` stands for each.
    #[serde(default)]
    resources: BTreeMap<String, Vec<String>>,
    /// Granted without being asked for, or of no power.
    #[serde(default)]
    harmless: Vec<String>,
    #[serde(default)]
    needs: BTreeMap<String, Need>,
}

/// One thing that must be allowed.
#[derive(Clone, Debug, Deserialize)]
struct Need {
    /// Any of these; the least first.
    any: Vec<String>,
    /// These allow it too, and a great deal more.
    #[serde(default)]
    wide: Vec<String>,
}

impl Need {
    fn least(&self) -> &str {
        self.any.first().map_or("", String::as_str)
    }

    fn names(&self, scope: &str) -> bool {
        self.any.iter().chain(&self.wide).any(|name| same(name, scope))
    }

    fn is_met_by(&self, granted: &[String]) -> bool {
        granted.iter().any(|scope| self.names(scope))
    }
}

static ROWS: LazyLock<Vec<Row>> =
    LazyLock::new(|| serde_json::from_str(include_str!("scopes.json")).unwrap_or_default());

/// A row with all that it takes over, and each name written out.
struct Provider {
    place: String,
    harmless: Vec<String>,
    needs: BTreeMap<String, Need>,
}

impl Provider {
    /// By the Access Token URL, as the presets are recognised; where two clouds share it, by what the settings ask for.
    fn of(account: &Account) -> Option<Self> {
        let client = &account.client;
        let host = client.token_url.host_str()?;
        let owners = preset::all().iter().filter(|preset| preset.token_hosts().any(|own| own == host));
        let mut found: Vec<_> =
            owners.filter_map(|preset| ROWS.iter().find(|row| row.provider == preset.id)).map(Self::from_row).collect();
        let asks = |one: &Self| client.scopes.iter().any(|scope| one.needs.values().any(|need| need.names(scope)));
        let best = found.iter().position(asks).unwrap_or(0);
        (best < found.len()).then(|| found.swap_remove(best))
    }

    fn from_row(row: &Row) -> Self {
        let base = row.like.as_ref().and_then(|like| ROWS.iter().find(|row| row.provider == *like)).unwrap_or(row);
        let all = |names: &[String]| names.iter().flat_map(|name| expand(name, &row.resources)).collect::<Vec<_>>();
        let needs = base.needs.iter().map(|(key, need)| {
            let need = Need { any: all(&need.any), wide: all(&need.wide) };
            (key.clone(), need)
        });
        Self { place: base.place.clone(), harmless: all(&base.harmless), needs: needs.collect() }
    }

    /// What this direction of the account's family of protocols needs.
    fn needs(&self, account: &Account, direction: Direction) -> Vec<&Need> {
        let writes = account
            .fetching
            .as_ref()
            .is_some_and(|fetching| fetching.after_import != Action::Leave || fetching.after_refusal != Action::Leave);
        let family = match (&account.protocol, direction) {
            (Protocol::Imap { .. } | Protocol::Smtp { .. }, Direction::Incoming) => return self.need("imap"),
            (Protocol::Imap { .. } | Protocol::Smtp { .. }, Direction::Outgoing) => return self.need("smtp"),
            (Protocol::Ews { .. }, _) => return self.need("ews"),
            (Protocol::Graph { .. }, _) => "graph",
            (Protocol::Gmail { .. }, _) => "gmail",
        };
        let what = match direction {
            Direction::Outgoing => "send",
            Direction::Incoming if writes => "write",
            Direction::Incoming => "read",
        };
        self.need(&format!("{family}_{what}{}", shared(account)))
    }

    /// The same, and what is made use of where it was granted: Graph sends with Mail.Send alone, but only a draft can be
    /// sent again after a lost answer, and only a draft can be large.
    fn uses(&self, account: &Account, direction: Direction) -> Vec<&Need> {
        let mut uses = self.needs(account, direction);
        if let (Protocol::Graph { .. }, Direction::Outgoing) = (&account.protocol, direction) {
            uses.extend(self.need(&format!("graph_draft{}", shared(account))));
        }
        uses
    }

    /// The permissions that an administrator gives an application, where they are known; it never gets to see them.
    fn of_application(&self, account: &Account) -> Option<Vec<String>> {
        let known = account.client.grant.is_app_only() && matches!(account.protocol, Protocol::Graph { .. });
        let needs = self.uses(account, account.direction);
        known.then(|| needs.iter().map(|need| need.least().to_owned()).collect())
    }

    fn need(&self, key: &str) -> Vec<&Need> {
        self.needs.get(key).into_iter().collect()
    }
}

fn expand(name: &str, resources: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let inner = name.strip_prefix('{').and_then(|rest| rest.split_once("}/"));
    match inner {
        Some((key, scope)) => resources
            .get(key)
            .into_iter()
            .flatten()
            .map(|resource| if resource.is_empty() { scope.to_owned() } else { format!("{resource}/{scope}") })
            .collect(),
        None => vec![name.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        oauth::tests_support::account,
        settings::{GrantType, parse},
    };

    const IMAP: &str = "https://outlook.office.com/IMAP.AccessAsUser.All";
    const SMTP: &str = "https://outlook.office.com/SMTP.Send";

    fn at(token_url: &str, asked: &str) -> Account {
        let mut account = account("https://idp.test");
        account.client.token_url = token_url.parse().unwrap();
        account.client.scopes = list(asked);
        account
    }

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn microsoft(asked: &str) -> Account {
        at("https://login.microsoftonline.com/common/oauth2/v2.0/token", asked)
    }

    #[test]
    fn every_preset_asks_for_exactly_what_its_protocol_needs() {
        let mut forms = 0;
        for preset in preset::all() {
            let graph = preset.id.starts_with("microsoft365").then_some("Microsoft Graph");
            for (direction, name) in [("incoming", Some("POP/IMAP/POPS/IMAPS")), ("outgoing", Some("SMTP/SMTPS"))]
                .into_iter()
                .chain([("incoming", graph), ("outgoing", graph)])
            {
                let Some(name) = name else { continue };
                let mut form = json!({
                    "connection_protocol": name, "username": "desk@corp.test", "client_id": "c",
                    "client_secret": "s", "redirect_url": "https://desk.test/cb", "authentication_type": "OAuth",
                    "advanced": {"provider": preset.id},
                });
                if direction == "incoming" {
                    form["email_addresses"] = json!(["desk@corp.test"]);
                    form["fetch_interval_minutes"] = json!(5);
                }
                let account = parse(&json!({ direction: form }).to_string()).unwrap_or_else(|e| {
                    panic!("{} {direction}: {e} {:?}", preset.id, e.faults());
                });
                let scopes = Scopes::compare(&account, &account.client.scopes);
                assert!(!scopes.needed.is_empty(), "{} {direction}", preset.id);
                assert_eq!(scopes.missing, Vec::<String>::new(), "{} {direction}", preset.id);
                assert_eq!(scopes.excess, Vec::<String>::new(), "{} {direction}", preset.id);
                forms += 1;
            }
        }
        assert_eq!(forms, 2 * preset::all().len() + 2 * 4);
        assert!(ROWS.iter().all(|row| preset::all().iter().any(|preset| preset.id == row.provider)));
    }

    #[test]
    fn a_missing_scope_names_itself_and_who_adds_it_where() {
        let asked = format!("{IMAP} {SMTP} offline_access");
        let account = microsoft(&asked);
        let scopes = Scopes::compare(&account, &list(SMTP));
        assert_eq!((scopes.missing.clone(), scopes.needed.clone()), (list(IMAP), list(IMAP)));
        let error = scopes.explain(&account).unwrap();
        assert_eq!(error.kind(), Kind::ConsentRequired);
        assert!(error.message().contains(IMAP), "{error}");

        let account = microsoft(SMTP);
        let error = Scopes::compare(&account, &list(SMTP)).explain(&account).unwrap();
        assert_eq!(error.kind(), Kind::AdminRequired);
        let words = error.to_string();
        assert!(words.contains(IMAP) && words.contains("Scope") && words.contains("API permissions"), "{words}");

        // SMTP was asked for and is missing, which does not explain what IMAP says.
        let account = microsoft(&asked);
        let scopes = Scopes::compare(&account, &list(IMAP));
        assert_eq!(scopes.missing, list(SMTP));
        assert!(scopes.explain(&account).is_none());
    }

    #[test]
    fn a_permission_of_another_service_is_none() {
        // Graph has a permission of this name, and mail servers do not take its tokens.
        let account = microsoft(IMAP);
        assert_eq!(
            Scopes::compare(&account, &list("https://graph.microsoft.com/IMAP.AccessAsUser.All")).missing,
            list(IMAP)
        );
        // The other name of the same service, and another case.
        for granted in ["https://outlook.office365.com/IMAP.AccessAsUser.All", &IMAP.to_lowercase()] {
            let scopes = Scopes::compare(&account, &list(granted));
            assert!(scopes.missing.is_empty() && scopes.excess.is_empty(), "{scopes:?}");
        }
    }

    #[test]
    fn more_than_needed_is_said() {
        let account = microsoft(IMAP);
        let granted = list(&format!("{IMAP} {SMTP} https://graph.microsoft.com/Mail.ReadWrite openid User.Read"));
        let scopes = Scopes::compare(&account, &granted);
        // The outgoing form of the same mailbox shares the grant.
        assert_eq!(scopes.excess, list("https://graph.microsoft.com/Mail.ReadWrite"));
        assert!(scopes.note().unwrap().contains("Mail.ReadWrite"));

        let mut account = at("https://oauth2.googleapis.com/token", "https://mail.google.com/");
        let granted = list("https://mail.google.com/ openid https://www.googleapis.com/auth/userinfo.email");
        assert!(Scopes::compare(&account, &granted).excess.is_empty());
        account.protocol = Protocol::Gmail { base_url: "https://gmail.googleapis.com/gmail/v1".parse().unwrap() };
        let scopes = Scopes::compare(&account, &granted);
        assert_eq!(scopes.excess, list("https://mail.google.com/"));
        assert!(scopes.missing.is_empty(), "it is enough, and too much");
    }

    #[test]
    fn a_shared_mailbox_needs_the_shared_permission() {
        let mut account = microsoft("Mail.Read");
        account.protocol = Protocol::Graph { base_url: "https://graph.microsoft.com/v1.0".parse().unwrap() };
        account.consenting_user = "anna@corp.test".into();
        let scopes = Scopes::compare(&account, &list("Mail.Read"));
        assert_eq!(scopes.needed, list("https://graph.microsoft.com/Mail.Read.Shared"));
        assert!(Scopes::compare(&account, &list("Mail.Read.Shared Mail.Read")).explain(&account).is_none());
    }

    #[test]
    fn sending_by_graph_needs_mail_send_and_makes_use_of_drafts() {
        const GRAPH: &str = "https://graph.microsoft.com";
        let mut account = microsoft(&format!("{GRAPH}/Mail.Send"));
        account.protocol = Protocol::Graph { base_url: format!("{GRAPH}/v1.0").parse().unwrap() };
        account.direction = Direction::Outgoing;
        let scopes = Scopes::compare(&account, &list("Mail.Send"));
        assert_eq!((scopes.needed.clone(), scopes.missing.clone()), (list(&format!("{GRAPH}/Mail.Send")), list("")));
        let both = Scopes::compare(&account, &list("Mail.Send Mail.ReadWrite Calendars.Read"));
        assert_eq!(both.excess, list("Calendars.Read"));
        let none = Scopes::compare(&account, &list("Mail.ReadWrite"));
        assert!(none.explain(&account).unwrap().message().contains("Mail.Send"));
        account.consenting_user = "anna@corp.test".into();
        let shared = Scopes::compare(&account, &list("Mail.Send.Shared Mail.ReadWrite.Shared Mail.ReadWrite"));
        assert_eq!(
            (shared.needed, shared.excess),
            (list(&format!("{GRAPH}/Mail.Send.Shared")), list("Mail.ReadWrite"))
        );
    }

    #[test]
    fn an_application_is_told_the_permissions_that_it_cannot_see() {
        let mut account = microsoft("https://graph.microsoft.us/.default");
        account.client.token_url = "https://login.microsoftonline.us/t/oauth2/v2.0/token".parse().unwrap();
        account.protocol = Protocol::Graph { base_url: "https://graph.microsoft.us/v1.0".parse().unwrap() };
        account.client.grant = GrantType::ClientCredentials;
        let scopes = Scopes::compare(&account, &list("https://graph.microsoft.us/.default"));
        assert_eq!(scopes.needed, list("https://graph.microsoft.us/Mail.Read"));
        assert!(scopes.missing.is_empty() && scopes.excess.is_empty());
        account.direction = Direction::Outgoing;
        let scopes = Scopes::compare(&account, &[]);
        assert_eq!(
            scopes.needed,
            list("https://graph.microsoft.us/Mail.Send https://graph.microsoft.us/Mail.ReadWrite")
        );
    }

    #[test]
    fn elsewhere_the_settings_say_what_is_needed_and_an_administrators_choice_is_not_judged() {
        let account = at("https://idp.test/token", "openid mail offline_access");
        let scopes = Scopes::compare(&account, &list("openid Mail admin"));
        assert_eq!((scopes.needed, scopes.missing, scopes.excess), (list("mail"), list(""), list("admin")));
        let mut account = microsoft("https://outlook.office365.com/.default");
        account.client.grant = GrantType::ClientCredentials;
        let scopes = Scopes::compare(&account, &list("https://outlook.office365.com/.default"));
        assert!(scopes.missing.is_empty() && scopes.excess.is_empty() && scopes.explain(&account).is_none());
    }
}
