//! What is kept of a consent: one record per grant, replaced atomically, wiped from memory when dropped.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use std::collections::BTreeMap;

use super::{
    AccessToken, Scopes,
    answer::TokenAnswer,
    client_auth::ClientAuth,
    failure::Words,
    resource::{self, Resource},
};
use crate::{
    clock::UnixSeconds,
    error::{Error, Kind, Result},
    limits,
    secret::Secret,
    settings::Account,
    store::{Store, Table},
};

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Grant {
    /// Of this record; a later version of the library may write more.
    pub format: u32,
    /// Who consented, as the provider names them; `None` when it does not say.
    pub identity: Option<String>,
    /// What the provider granted; what was asked for when it does not say.
    pub scopes: Vec<String>,
    pub client_auth: ClientAuth,
    #[serde(with = "secret_text")]
    pub access_token: Secret,
    pub issued_at: UnixSeconds,
    /// `None`: the provider does not say; used until it is refused.
    pub expires_at: Option<UnixSeconds>,
    #[serde(with = "optional_secret_text")]
    pub refresh_token: Option<Secret>,
    pub refresh_expires_at: Option<UnixSeconds>,
    /// The provider ends the sign-in so many seconds after a renewal, or after the consent: with its session.
    #[serde(default)]
    pub session_seconds: Option<u64>,
    /// Counts the access tokens of this grant, from 1.
    pub generation: u64,
    pub consented_at: UnixSeconds,
    /// The provider ended the grant: nothing more is asked of it until a new consent.
    pub refusal: Option<Words>,
    /// Who is refreshing now.
    pub lease: Option<Lease>,
    /// What the access token above is for. Records of older versions hold one token; its scopes tell.
    #[serde(default)]
    pub resource: Resource,
    /// The tokens for other resources, under the same refresh token.
    #[serde(default)]
    pub others: BTreeMap<String, Held>,
    /// All that was asked for in consent windows since nobody had consented; empty in older records.
    #[serde(default)]
    pub consented: Vec<String>,
    /// What each account asks for that lives on this grant: the next consent window covers them all.
    #[serde(default)]
    pub asked: BTreeMap<String, Vec<String>>,
}

/// An access token that is not in use by this account.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Held {
    pub scopes: Vec<String>,
    #[serde(with = "secret_text")]
    pub access_token: Secret,
    pub issued_at: UnixSeconds,
    pub expires_at: Option<UnixSeconds>,
}

/// Keeps other processes from presenting the same refresh token. The record's version is the fence: whoever lost the
/// lease loses the write as well.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Lease {
    pub owner: String,
    pub until: UnixSeconds,
}

/// The end of a token that was never fetched.
const NEVER: UnixSeconds = 0;

/// Names an account among those of one grant.
pub(super) fn user_of(account: &Account) -> String {
    let label = account.label.as_deref().unwrap_or_default();
    format!("{}\n{}\n{label}", account.direction.pointer(), account.username.to_lowercase())
}

impl Grant {
    const FORMAT: u32 = 1;

    /// Of a code exchange that was sent at `asked_at`.
    pub fn consented(
        account: &Account,
        client_auth: ClientAuth,
        answer: &TokenAnswer,
        asked_at: UnixSeconds,
    ) -> Result<Self> {
        let mut grant = Self {
            format: Self::FORMAT,
            identity: None,
            scopes: account.client.scopes.clone(),
            client_auth,
            access_token: Secret::default(),
            issued_at: asked_at,
            expires_at: None,
            refresh_token: None,
            refresh_expires_at: None,
            session_seconds: None,
            generation: 0,
            consented_at: asked_at,
            refusal: None,
            lease: None,
            resource: resource::of_account(account),
            others: BTreeMap::new(),
            consented: account.client.scopes.clone(),
            asked: BTreeMap::from([(user_of(account), account.client.scopes.clone())]),
        };
        grant.renew(answer, asked_at)?;
        Ok(grant)
    }

    /// Takes over what a token endpoint answered. An answer without refresh token keeps the old one (RFC 6749 section 6).
    pub fn renew(&mut self, answer: &TokenAnswer, asked_at: UnixSeconds) -> Result<()> {
        use oauth2::{TokenResponse, basic::BasicTokenType};
        if answer.token_type() != &BasicTokenType::Bearer {
            return Err(Error::new(
                Kind::Unsupported,
                "The provider issues tokens of a kind that mail servers do not take.",
            )
            .remedy("Have the administrator register the app for bearer tokens."));
        }
        let access_token = token(answer.access_token().secret())?;
        let refresh_token = answer.refresh_token().map(|refresh| token(refresh.secret())).transpose()?;
        self.access_token = access_token;
        if refresh_token.is_some() {
            self.refresh_token = refresh_token;
            self.refresh_expires_at = None;
        }
        if let Some(seconds) = answer.refresh_token_expires_in().filter(|seconds| *seconds > 0) {
            self.refresh_expires_at = Some(asked_at + seconds as i64);
        }
        self.session_seconds = answer.session_ends_in();
        if let Some(scopes) = answer.scopes().filter(|scopes| !scopes.is_empty()) {
            self.scopes = scopes.iter().map(|scope| scope.to_string()).collect();
        }
        self.issued_at = asked_at;
        self.expires_at = answer.expires_in().map(|wait| asked_at + wait.as_secs() as i64);
        self.generation += 1;
        Ok(())
    }

    /// Puts the token for `resource` in front. One that was never fetched is there as one that has ended.
    pub fn select(&mut self, resource: &Resource) {
        let present = self.resource.take().or_else(|| resource::of_scopes(&self.scopes));
        if present == *resource || present.is_none() && self.consented.is_empty() {
            self.resource = resource.clone();
            return;
        }
        let wanted = resource.as_ref().and_then(|resource| self.others.remove(resource)).unwrap_or_else(|| Held {
            scopes: resource::part(self.covered(), resource),
            access_token: Secret::default(),
            issued_at: 0,
            expires_at: Some(NEVER),
        });
        let before = Held {
            scopes: std::mem::replace(&mut self.scopes, wanted.scopes),
            access_token: std::mem::replace(&mut self.access_token, wanted.access_token),
            issued_at: std::mem::replace(&mut self.issued_at, wanted.issued_at),
            expires_at: std::mem::replace(&mut self.expires_at, wanted.expires_at),
        };
        if let Some(present) = present
            && before.expires_at != Some(NEVER)
        {
            if self.consented.is_empty() {
                self.consented = before.scopes.clone();
            }
            self.others.insert(present, before);
        }
        self.resource = resource.clone();
    }

    fn covered(&self) -> &[String] {
        if self.consented.is_empty() { &self.scopes } else { &self.consented }
    }

    /// Was a person ever asked for what is in front? Applications ask nobody.
    pub fn covers(&self, account: &Account) -> bool {
        // What an older version kept may have scopes of names that tell nothing.
        let is_unknown = self.consented.is_empty() && resource::of_scopes(&self.scopes).is_none();
        account.client.grant.is_app_only()
            || self.resource.is_none()
            || is_unknown
            || resource::has_part(self.covered(), &self.resource)
    }

    /// What a renewal names as its scope, where one grant serves several resources.
    pub fn scope_of_renewal(&self) -> Option<String> {
        let consented = self.covered();
        let is_needed = !self.others.is_empty() || resource::are_several(consented);
        // Those of the ID token are nobody's business any more.
        let part = resource::part(consented, &self.resource);
        let named = part.iter().filter(|scope| !["openid", "profile", "email"].contains(&scope.as_str()));
        is_needed.then(|| named.cloned().collect::<Vec<_>>().join(" "))
    }

    /// A new consent takes the place of `old`: what else lives on the grant goes on.
    pub fn take_over(&mut self, old: &Self) {
        let mut old = old.clone();
        old.select(&self.resource);
        self.consented = resource::union([&*self.consented, old.covered()]);
        for (resource, held) in old.others {
            self.others.entry(resource).or_insert(held);
        }
        for (user, scopes) in old.asked {
            self.asked.entry(user).or_insert(scopes);
        }
    }

    pub fn token(&self) -> AccessToken {
        AccessToken {
            secret: self.access_token.clone(),
            generation: self.generation,
            expires_at: self.expires_at,
            granted: self.scopes.clone().into(),
        }
    }

    pub fn is_valid(&self, now: UnixSeconds) -> bool {
        // A clock that was set back would make an old token look fresh for ever.
        self.expires_at.is_none_or(|end| now < end && now >= self.issued_at - limits::ID_TOKEN_SKEW)
    }

    /// Is this what `stored` would be if its renewal had been written? Then its refresh token is spent.
    pub fn succeeds(&self, stored: &Self) -> bool {
        self.consented_at == stored.consented_at && self.generation > stored.generation
    }

    /// Valid, and not so near its end that it is time for the next.
    pub fn is_fresh(&self, account: &Account, now: UnixSeconds) -> bool {
        let interval = account.fetching.as_ref().map_or(0, |fetching| 60 * i64::from(fetching.interval_minutes));
        let margin = limits::TOKEN_EARLY_MARGIN.as_secs() as i64;
        let wanted = (limits::TOKEN_EARLY.as_secs() as i64).max(if interval > 0 { interval + margin } else { 0 });
        let most = |end| (end - self.issued_at) / limits::TOKEN_EARLY_PART;
        self.is_valid(now + self.expires_at.map_or(0, |end| wanted.min(most(end))))
    }

    /// Compared with what `account` needs.
    pub fn scopes(&self, account: &Account) -> Scopes {
        Scopes::compare(account, &self.scopes)
    }

    pub fn read(store: &dyn Store, id: &str) -> Result<Option<(Self, u64)>> {
        let Some(record) = store.read(Table::Grant, id)? else { return Ok(None) };
        // serde's error may quote the record.
        let grant = serde_json::from_slice(&record.bytes).map_err(|_| {
            Error::new(
                Kind::Internal,
                "The stored sign-in of this mailbox cannot be read: a newer version wrote it, or it is damaged.",
            )
            .remedy("Update the plugin, or open the consent window again.")
        })?;
        Ok(Some((grant, record.version)))
    }

    /// `None`: somebody else wrote since `expected`.
    pub fn write(&self, store: &dyn Store, id: &str, expected: Option<u64>) -> Result<Option<u64>> {
        let tokens =
            self.access_token.expose().len() + self.refresh_token.as_ref().map_or(0, |token| token.expose().len());
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * tokens + limits::STORE_GRANT_ROOM));
        serde_json::to_writer(&mut *bytes, self)
            .map_err(|e| Error::new(Kind::Internal, "A sign-in could not be put into a record.").source_error(e))?;
        store.write(Table::Grant, id, expected, &bytes)
    }
}

/// RFC 6749 appendix A.12 and A.17: visible ASCII. Anything else could end a SASL field early.
fn token(text: &str) -> Result<Secret> {
    let visible = text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    if text.is_empty() || text.len() > limits::TOKEN_MAX || !visible {
        return Err(Error::new(
            Kind::ServerMisbehaved,
            "The provider issued a token that is empty, too long, or not plain text.",
        )
        .remedy("Check that Access Token URL is the provider's token endpoint."));
    }
    Ok(Secret::new(text))
}

/// The one way a secret gets into a record; the store seals it.
pub(super) mod secret_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::secret::Secret;

    pub fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

mod optional_secret_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::secret::Secret;

    pub fn serialize<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::expose).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
    }
}
