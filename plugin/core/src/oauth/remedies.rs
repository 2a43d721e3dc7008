//! Advice for Microsoft's numbers. Only the wording depends on them, never what is done.
//!
//! Source: Microsoft Entra authentication and authorization error codes (reference-error-codes).

pub(super) fn for_aadsts(number: u32) -> Option<&'static str> {
    Some(match number {
        50011 => "Enter the same Redirect URL here and in the app registration (Web platform), character by character.",
        50020 | 50034 | 51004 | 16000 => {
            "This account is not in the directory of the URLs: sign in with another account, or put the right tenant id into both URLs."
        }
        50053 => {
            "The account is locked, or its IP address is flagged: the administrator finds the reason in the sign-in log."
        }
        50055 | 50144 => "The password has expired: set a new one, then open the consent window again.",
        50057 => "The account is disabled: the administrator must enable it.",
        50072 | 50074 | 50076 | 50078 | 50079 => {
            "Microsoft wants multi-factor authentication: open the consent window again and complete it there."
        }
        50105 => "The administrator must assign this user to the enterprise application.",
        50132 | 50133 | 50173 => {
            "The sign-in was revoked, for example by a new password: open the consent window again."
        }
        50194 | 9001023 | 90124 | 90130 | 9002332 => {
            "Replace /common or /consumers in both URLs by the tenant id of the organisation."
        }
        50196 => "Microsoft saw too many equal requests: wait some minutes.",
        500011 | 650057 | 650052 | 650056 => {
            "The service of this scope is not in the tenant, or the app lacks the permission: check Scope, and the API permissions of the app."
        }
        53000..=53003 | 530032 | 530035 | 50131 | 50005 => {
            "A Conditional Access policy blocks this sign-in: the administrator must exclude this app or allow this server's address, then consent again."
        }
        54005 => "The answer of the consent window was used already: start the consent again.",
        65001 | 65004 | 90008 | 90094 | 90095 => {
            "Consent to the listed permissions is missing: open the consent window again; an administrator may have to consent for the organisation."
        }
        70001 | 700011 | 700016 | 7000112 => {
            "The app is unknown or disabled in this tenant: check Client ID, and the tenant id in both URLs."
        }
        70002 | 7000215 => "Enter the Value of the client secret, not its Secret ID.",
        7000222 => {
            "The client secret has expired: create a new one in the app registration (Certificates & secrets) and enter its Value."
        }
        7000218 => "The app registration wants a client secret: enter one, or allow public client flows.",
        700025 => {
            "The app is registered as a public client: remove the client secret, or register the redirect URL under Web."
        }
        70008 | 700082 => "The sign-in was not used for too long: open the consent window again.",
        700084 => {
            "The redirect URL is registered as single-page application, whose sign-ins end after a day: register it under Web, then consent again."
        }
        70043 => {
            "A sign-in frequency policy ended the sign-in: the administrator must exempt this app, then consent again."
        }
        70011 | 28002 | 28003 | 700022 | 700023 => {
            "Check Scope: all of it must belong to one service (for mail, https://outlook.office.com/…)."
        }
        90002 | 50059 | 90019 | 50128 | 900023 => {
            "Check the tenant id in both URLs, and that they belong to the right cloud."
        }
        _ => return None,
    })
}
