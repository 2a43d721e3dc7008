//! Resources: where the provider issues an access token for one service at a time (Microsoft:
//! Exchange's mail servers, and Graph), one grant holds a token for each of them. The refresh token
//! serves them all; which one a token is for follows from the scopes of the request.
//!
//! Source: Microsoft identity platform, "OAuth 2.0 authorization code flow" (the authorize request may
//! name scopes of several resources, a token request those of one: AADSTS28000).
//! The resources stand in `scopes.json`. Elsewhere one token serves all scopes of a grant.

use super::scopes::{is_silent, resource_named};
use crate::settings::{Account, Protocol};

/// A resource of the table; `None`: the provider's tokens know none.
pub(super) type Resource = Option<String>;

/// What the access tokens of this account are for.
pub(super) fn of_account(account: &Account) -> Resource {
    let mut named = account.client.scopes.iter().filter_map(|scope| resource_named(scope));
    let first = named.clone().next()?;
    // One form may name scopes of both.
    let own = match account.protocol {
        Protocol::Graph { .. } => "graph",
        _ => "outlook",
    };
    let own = if named.any(|resource| resource == own) { own } else { first };
    Some(own.to_owned())
}

pub(super) fn of_scopes(scopes: &[String]) -> Resource {
    scopes.iter().find_map(|scope| resource_named(scope)).map(str::to_owned)
}

pub(super) fn are_several(scopes: &[String]) -> bool {
    let first = of_scopes(scopes);
    scopes.iter().any(|scope| resource_named(scope).is_some_and(|other| Some(other) != first.as_deref()))
}

/// Those of one resource, without what decides about ID tokens only.
pub(super) fn part(scopes: &[String], resource: &Resource) -> Vec<String> {
    let is_part = |scope: &&String| match resource_named(scope) {
        Some(named) => resource.as_deref() == Some(named),
        None => resource.is_none() || is_silent(scope),
    };
    scopes.iter().filter(is_part).cloned().collect()
}

/// Has a consent covered anything of this resource?
pub(super) fn has_part(scopes: &[String], resource: &Resource) -> bool {
    part(scopes, resource).iter().any(|scope| !is_silent(scope))
}

/// The first, and what the others have besides.
pub(super) fn union<'a>(lists: impl IntoIterator<Item = &'a [String]>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for scope in lists.into_iter().flatten() {
        if !all.contains(scope) {
            all.push(scope.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn scopes_are_told_apart_by_resource() {
        let both =
            list("openid https://outlook.office.com/IMAP.AccessAsUser.All https://graph.microsoft.com/Mail.Send");
        let (mail, graph) = (Some("outlook".to_owned()), Some("graph".to_owned()));
        assert!(are_several(&both));
        assert_eq!(part(&both, &mail), list("openid https://outlook.office.com/IMAP.AccessAsUser.All"));
        assert_eq!(part(&both, &graph), list("openid https://graph.microsoft.com/Mail.Send"));
        assert!(!has_part(&list("openid https://graph.microsoft.us/Mail.Send"), &mail));
        // Both names of one resource, and clouds that have names of their own.
        assert!(!are_several(&list("https://outlook.office.com/SMTP.Send https://outlook.office365.com/SMTP.Send")));
        assert_eq!(of_scopes(&list("https://partner.outlook.cn/SMTP.Send")), mail);
        // Everywhere else one token serves all.
        for one in ["openid mail offline_access", "https://mail.google.com/ https://www.googleapis.com/auth/gmail.send"]
        {
            assert!(!are_several(&list(one)) && of_scopes(&list(one)).is_none(), "{one}");
            assert_eq!(part(&list(one), &None), list(one));
        }
    }
}
