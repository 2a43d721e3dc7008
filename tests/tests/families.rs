//! Servers of other families, walked through the suites that `make test-servers` walks all of them through.
#![allow(clippy::unwrap_used)]

use oauth_mail_tests::families::FAMILIES;

fn walk(name: &str) {
    let family = FAMILIES.iter().find(|family| family.name == name).unwrap();
    let tally = family.run();
    assert!(tally.is_clean(), "{tally}");
}

#[test]
fn dovecot_is_walked_through() {
    walk("Dovecot");
}

#[test]
fn pymap_is_walked_through() {
    walk("pymap");
}

#[test]
fn aiosmtpd_is_walked_through() {
    walk("aiosmtpd");
}

#[test]
fn django_oauth_toolkit_is_walked_through() {
    walk("django-oauth-toolkit");
}
