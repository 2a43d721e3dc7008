//! The authorization server, the token it gave, and what that token may do.

use super::step::{Finding, KEEPER, NETWORK, Walk, words};
use crate::{
    clock::UnixSeconds,
    error::Kind,
    limits,
    oauth::{self, About, AccessToken, Inspected, Metadata, Scopes},
    session::Session,
    settings::Account,
};

/// How far the authorization server's clock is ahead of ours, seconds.
pub type Skew = i64;

/// Is it there, and is it the one that the settings mean?
pub fn authorization(walk: &mut Walk<'_>) -> Option<Skew> {
    let (session, account) = (walk.session, walk.account());
    walk.step("authorization", &["settings"], |deadline| {
        match oauth::inspect(&account.client, &session.net, deadline) {
            Ok(inspected) => {
                let skew = inspected.date.map(|date| date - session.clock.now());
                (allowed(published(&inspected), session, account), Some(skew))
            }
            Err(error) => {
                let host = account.client.token_url.host_str().unwrap_or_default();
                let finding = Finding::failed(format!("asked {host}"), &error, account);
                let finding = match error.kind() {
                    Kind::Transient => finding.by(&format!("{KEEPER}, with {NETWORK}")),
                    _ => finding.by(KEEPER),
                };
                (finding, None)
            }
        }
    })
    .flatten()
}

/// Says beforehand that the person who is about to sign in may not consent.
fn allowed(finding: Finding, session: &Session, account: &Account) -> Finding {
    let scopes = oauth::for_administrators(account);
    let is_given = session.grants.status(account).is_ok_and(|status| status.state == oauth::State::Authorized);
    let link = session.grants.admin_consent_url(account, &[]);
    match link {
        Some(link) if !scopes.is_empty() && !is_given => finding.but(
            &format!(
                "Unless the organisation has allowed it, a mailbox owner cannot consent to {}: only an administrator \
                 of the organisation can.",
                scopes.join(", ")
            ),
            "the administrator of the organisation at the provider",
            &format!("Have the administrator open this link and accept, then start the consent: {link}"),
        ),
        _ => finding,
    }
}

fn published(inspected: &Inspected) -> Finding {
    let Inspected { asked, status, metadata, .. } = inspected;
    let saw = format!("{asked} answered with HTTP {status}");
    match metadata {
        Metadata::NotConfigured => Finding::ok(
            saw,
            "The authorization server answers; no issuer is configured, so its \
            metadata was not compared.",
        ),
        Metadata::None => Finding::warning(
            saw,
            "The authorization server answers, but publishes no metadata at the configured issuer.",
            KEEPER,
            "Correct advanced › issuer, or leave it out: metadata is not needed.",
        ),
        Metadata::Found { differences } if differences.is_empty() => {
            Finding::ok(saw, "The authorization server publishes what the settings say.")
        }
        Metadata::Found { differences } => Finding::warning(
            saw,
            differences.join(" "),
            KEEPER,
            "Correct the settings, unless they differ from what the provider publishes on purpose.",
        ),
    }
}

/// Present, fresh, and renewable where it is time to know. Hands it over as one that may be tried.
pub fn token(walk: &mut Walk<'_>, refresh: bool, skew: Option<Skew>) -> Option<AccessToken> {
    let (session, account) = (walk.session, walk.account());
    let token = walk.step("token", &["settings"], |deadline| {
        let before = session.grants.status(account).ok().and_then(|status| status.renewed_at);
        let got = session.grants.access_token(account, &session.net, deadline).and_then(|token| {
            // A token that was just renewed has shown that it can be.
            let renewed = session.grants.status(account)?.renewed_at != before;
            if !refresh || renewed {
                return Ok((token, renewed));
            }
            session.grants.replace(account, &session.net, &token, deadline).map(|token| (token, true))
        });
        match got {
            Ok((token, renewed)) => {
                let status = session.grants.status(account).ok();
                (good(status, &token, renewed, account, session.clock.now(), skew), Some(token))
            }
            Err(error) => (Finding::failed(stored(session, account), &error, account), None),
        }
    });
    if let Some(token) = &token {
        walk.keep_secret(token.secret());
    }
    token
}

fn good(
    status: Option<oauth::Status>,
    token: &AccessToken,
    renewed: bool,
    account: &Account,
    now: UnixSeconds,
    skew: Option<Skew>,
) -> Finding {
    let identity = status.as_ref().and_then(|status| status.identity.clone());
    let mut saw = match token.expires_at() {
        Some(end) => format!("an access token that is good for {} seconds", (end - now).max(0)),
        None => "an access token whose end the provider does not say".to_owned(),
    };
    if let Some(identity) = identity {
        saw.push_str(&format!(", consented by {}", words(&identity)));
    }
    saw.push_str(if renewed { "; renewed just now" } else { "; not renewed, it is not time yet" });
    match skew {
        Some(skew) => saw.push_str(&format!("; the provider's clock is {skew:+} seconds from ours")),
        None => saw.push_str("; the provider's clock is not known"),
    }
    let means = if renewed { "Renewing works." } else { "The sign-in is there." };
    let mut finding = Finding::ok(saw, means);
    for warning in status.map(|status| status.warnings).unwrap_or_default() {
        let who = match warning.about {
            About::SignIn | About::SignInEnds | About::AccessToken => account.consenting_user.as_str(),
            About::Renewal | About::Store => KEEPER,
            // These have steps of their own.
            About::Scopes | About::ClientSecret | About::Certificate => continue,
        };
        finding = finding.but(&warning.sentence, who, "Act on this warning before the access token ends.");
    }
    match skew {
        Some(skew) if skew.abs() > limits::CLOCK_SKEW_WARNING => finding.but(
            &format!("Clocks differ by {} seconds: tokens seem to end too early or too late.", skew.abs()),
            "the administrator of this machine",
            "Set this machine's clock by NTP.",
        ),
        _ => finding,
    }
}

/// What is there, when no token came of it.
fn stored(session: &Session, account: &Account) -> String {
    match session.grants.status(account) {
        Ok(oauth::Status { consented_at: Some(_), identity, .. }) => match identity {
            Some(identity) => format!("a consent of {} that gives no token any more", words(&identity)),
            None => "a consent that gives no token any more".to_owned(),
        },
        _ => "no consent".to_owned(),
    }
}

/// What was granted, held against what was asked for and what the protocol needs.
pub fn scopes(walk: &mut Walk<'_>) {
    let (session, account) = (walk.session, walk.account());
    walk.step("scopes", &["token"], |_| match session.grants.status(account) {
        Ok(status) => (judge(account, &status.scopes), Some(())),
        Err(error) => (Finding::failed("", &error, account), None),
    });
}

fn judge(account: &Account, scopes: &Scopes) -> Finding {
    let list = |scopes: &[String]| if scopes.is_empty() { "nothing".to_owned() } else { words_of(scopes) };
    let saw = format!("granted: {}; needed: {}", list(&scopes.granted), list(&scopes.needed));
    if let Some(error) = scopes.explain(account) {
        return Finding::failed(saw, &error, account).by(&format!("{KEEPER}, then {}", account.consenting_user));
    }
    if !scopes.missing.is_empty() {
        return Finding::warning(
            saw,
            format!("The provider did not grant {}.", words_of(&scopes.missing)),
            account.consenting_user.as_str(),
            "Open the consent window again and leave all boxes ticked, or correct Scope.",
        );
    }
    match scopes.note() {
        Some(note) => Finding::ok(saw, &note),
        None => Finding::ok(saw, "Everything that was asked for was granted."),
    }
}

/// Scopes as they are: a URL among them is no credential, and bounded they are harmless.
fn words_of(scopes: &[String]) -> String {
    let text: String = scopes.join(" ").chars().filter(|c| !c.is_control()).collect();
    text.chars().take(limits::PROVIDER_TEXT_MAX).collect()
}
