//! From the settings to a secure connection.

use std::net::SocketAddr;

use super::step::{Finding, KEEPER, NETWORK, SERVER, Status, Walk, words};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::Kind,
    limits,
    net::{
        Net, TlsFacts,
        probe::{Certificate, TrustedBy},
    },
    oauth,
    settings::{Account, Direction, Endpoint, Protocol, TlsMode},
    transport::smtp,
};

const DAY: i64 = 86_400;

/// They were proven when the handle was opened; what remains is what they mean, and what of them ends.
pub fn settings(walk: &mut Walk<'_>) {
    let (account, now) = (walk.account(), walk.session.clock.now());
    walk.step("settings", &[], |_| {
        let Endpoint { host, port } = endpoint(account);
        let (what, how) = match (account.direction, &account.protocol) {
            (Direction::Incoming, protocol) => ("incoming", name(protocol)),
            (Direction::Outgoing, protocol) => ("outgoing", name(protocol)),
        };
        let client = &account.client;
        let user = &account.username;
        let saw = format!(
            "{what} mail of {user} by {how} at {host}:{port}; client {}, grant {}",
            client.client_id,
            client.grant.name()
        );
        let mut finding = Finding::ok(saw, "The settings are complete.");
        for warning in oauth::credentials_end(client, now) {
            finding = finding.but(&warning.sentence, KEEPER, "Do it before mail stops.");
        }
        (finding, Some(()))
    });
}

/// dns, tcp, tls.
pub fn walk(walk: &mut Walk<'_>) {
    let (account, net, now) = (walk.account(), &walk.session.net, walk.session.clock.now());
    let server = endpoint(account);
    let addresses = walk.step("dns", &["settings"], |deadline| dns(account, &server, net, deadline));
    let addresses = addresses.unwrap_or_default();
    walk.step("tcp", &["dns"], |deadline| tcp(account, &server, &addresses, net, deadline));
    walk.step("tls", &["tcp"], |deadline| tls(account, &server, net, now, deadline));
}

/// The server that is used when the first one is down.
pub fn alternate(walk: &mut Walk<'_>) {
    let (account, net, now) = (walk.account(), &walk.session.net, walk.session.clock.now());
    let Protocol::Smtp { alternate: Some(alternate), .. } = &account.protocol else { return };
    walk.step("alternate", &["settings"], |deadline| {
        let (mut finding, reached) = tls(account, alternate, net, now, deadline);
        if finding.status == Status::Failed {
            // Mail goes out without it.
            finding.status = Status::Warning;
            finding.means = format!("{} The alternate server could not stand in today.", finding.means);
        }
        (finding, reached)
    });
}

fn dns(account: &Account, server: &Endpoint, net: &Net, deadline: Deadline) -> (Finding, Option<Vec<SocketAddr>>) {
    let host = &server.host;
    if let Some(proxy) = net.proxy_for(host) {
        // Only for the egress policy: the proxy looks the name up itself.
        let found = net.addresses(host, server.port, deadline.at_most(limits::PROXY_LOOKUP_TIMEOUT));
        let known = if found.is_ok_and(|found| !found.is_empty()) { "known here, too" } else { "not known here" };
        let finding = Finding::ok(format!("{host} is {known}"), format!("The proxy {proxy} looks the name up."));
        return (finding, Some(Vec::new()));
    }
    match net.addresses(host, server.port, deadline) {
        Ok(addresses) if addresses.is_empty() => {
            let saw = format!("the name {host} has no address");
            let who = format!("{KEEPER}, with {NETWORK}");
            let mut finding = Finding::warning(saw, "Nothing can be connected to.", who, "Check the server name.");
            finding.status = Status::Failed;
            (finding, None)
        }
        Ok(addresses) => {
            let mut list: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            list.dedup();
            (Finding::ok(format!("{host} is {}", list.join(", ")), "The name is known."), Some(addresses))
        }
        Err(error) => {
            let finding = Finding::failed(format!("{host}: {}", cause(&error)), &error, account);
            (finding.by(&format!("{KEEPER}, with {NETWORK}")), None)
        }
    }
}

fn tcp(
    account: &Account,
    server: &Endpoint,
    addresses: &[SocketAddr],
    net: &Net,
    deadline: Deadline,
) -> (Finding, Option<()>) {
    let told = |silent: &[crate::net::Silent]| {
        silent.iter().map(|one| format!("{}: {}", one.address, one.why)).collect::<Vec<_>>().join("; ")
    };
    if let Some(proxy) = net.proxy_for(&server.host) {
        return match net.tunnel(proxy, &server.host, server.port, deadline) {
            Ok(took) => {
                let saw = format!("the proxy {proxy} connected in {} ms", took.as_millis());
                (Finding::ok(saw, "The server can be reached through the proxy."), Some(()))
            }
            Err(error) => {
                let finding = Finding::failed(format!("through the proxy {proxy}: {}", cause(&error)), &error, account);
                (finding.by(&format!("{KEEPER}, with {NETWORK}")), None)
            }
        };
    }
    match net.first_answering(&server.host, addresses, deadline) {
        Ok(answered) if answered.silent.is_empty() => {
            let saw = format!("{} answered in {} ms", answered.address, answered.took.as_millis());
            (Finding::ok(saw, "The server can be reached."), Some(()))
        }
        Ok(answered) => {
            let saw = format!(
                "{} answered in {} ms; {}",
                answered.address,
                answered.took.as_millis(),
                told(&answered.silent)
            );
            let means = "The server can be reached, but not at each of its addresses: connecting takes longer.";
            let remedy = "Make the other addresses answer, or take them out of the DNS.";
            (Finding::warning(saw, means, format!("{SERVER}, or {NETWORK}"), remedy), Some(()))
        }
        Err((error, silent)) => {
            let finding = Finding::failed(told(&silent), &error, account);
            (finding.by(&format!("{KEEPER}; if the port is right, {NETWORK}")), None)
        }
    }
}

fn tls(account: &Account, server: &Endpoint, net: &Net, now: UnixSeconds, deadline: Deadline) -> (Finding, Option<()>) {
    let (watched, watch) = match net.watched() {
        Ok(watched) => watched,
        Err(error) => return (Finding::failed("", &error, account), None),
    };
    let outcome = match &account.protocol {
        Protocol::Smtp { tls, .. } => secure_smtp(server, *tls, &watched, deadline),
        _ => watched.connect_tls(&server.host, server.port, deadline).map(|stream| (stream.facts(), String::new())),
    };
    let certificate = watch.certificate();
    let shown = certificate.as_ref().map(|certificate| describe(certificate, now));
    match outcome {
        Ok((facts, more)) => {
            let shown = shown.unwrap_or_else(|| "a certificate that cannot be described".to_owned());
            let through = facts.proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
            let at = match &facts.proxy {
                Some(_) => format!("{}:{}", server.host, server.port),
                None => facts.address.to_string(),
            };
            let saw = format!("{} with {} at {at}{through}; {shown}{more}", facts.version, facts.cipher_suite);
            let finding = Finding::ok(saw, "The connection is secure.");
            let end = certificate.map_or(i64::MAX, |certificate| certificate.not_after);
            if end.saturating_sub(now) >= limits::CERTIFICATE_EXPIRY_WARNING_DAYS * DAY {
                return (finding, Some(()));
            }
            let means = format!("The server's certificate {}.", ends(end, now));
            let remedy = "Renew the certificate: mail stops when it ends.";
            (finding.but(&means, SERVER, remedy), Some(()))
        }
        Err(error) => {
            let finding = Finding::failed(shown.unwrap_or_else(|| cause(&error)), &error, account);
            // Who shows the wrong certificate, and who typed the name: either may be right.
            let who = match error.kind() {
                Kind::AdminRequired => format!("{KEEPER}; if name and CA file are right, {SERVER}"),
                _ => format!("{KEEPER}; if the port is right, {SERVER}"),
            };
            (finding.by(&who), None)
        }
    }
}

fn secure_smtp(server: &Endpoint, mode: TlsMode, net: &Net, deadline: Deadline) -> crate::Result<(TlsFacts, String)> {
    let reached = smtp::reach(server, mode, net, deadline)?;
    let offered = if reached.mechanisms.is_empty() { "none".to_owned() } else { reached.mechanisms.join(", ") };
    Ok((reached.tls, format!("; sign-in mechanisms: {}", words(&offered))))
}

fn describe(certificate: &Certificate, now: UnixSeconds) -> String {
    let Certificate { subject, issuer, names, not_after, trusted_by } = certificate;
    let trust = match trusted_by {
        Some(TrustedBy::Platform) => "trusted by this machine's own roots",
        Some(TrustedBy::CaFile) => "trusted by the CA file of the settings",
        None => "not trusted here",
    };
    let or = |text: &str| if text.is_empty() { "nobody".to_owned() } else { text.to_owned() };
    format!(
        "certificate of {} for {}, issued by {}, {}; {trust}",
        or(subject),
        or(&names.join(", ")),
        or(issuer),
        ends(*not_after, now)
    )
}

fn ends(end: UnixSeconds, now: UnixSeconds) -> String {
    match (end - now) / DAY {
        _ if end <= now => "has ended".to_owned(),
        0 => "ends today".to_owned(),
        days => format!("ends in {days} days"),
    }
}

/// What the system said, below our own sentence.
fn cause(error: &crate::Error) -> String {
    let chain = error.to_json();
    let first = chain["chain"][0].as_str().unwrap_or_default();
    if first.is_empty() { "no answer".to_owned() } else { words(first) }
}

/// Where the mailbox is.
fn endpoint(account: &Account) -> Endpoint {
    match &account.protocol {
        Protocol::Imap { server } | Protocol::Smtp { server, .. } => server.clone(),
        Protocol::Ews { url } | Protocol::Graph { base_url: url } | Protocol::Gmail { base_url: url } => Endpoint {
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or(443),
        },
    }
}

fn name(protocol: &Protocol) -> &'static str {
    match protocol {
        Protocol::Imap { .. } => "IMAPS",
        Protocol::Smtp { tls: TlsMode::Implicit, .. } => "SMTPS",
        Protocol::Smtp { tls: TlsMode::StartTls, .. } => "SMTP with STARTTLS",
        Protocol::Ews { .. } => "EWS",
        Protocol::Graph { .. } => "Microsoft Graph",
        Protocol::Gmail { .. } => "the Gmail API",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_in_days() {
        assert_eq!(ends(100, 100), "has ended");
        assert_eq!(ends(101, 100), "ends today");
        assert_eq!(ends(100 + 3 * DAY, 100), "ends in 3 days");
    }
}
