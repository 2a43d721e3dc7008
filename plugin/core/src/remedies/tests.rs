//! The table is checked as a whole: a row that cannot be found, or is found instead of another, helps nobody.

use std::{collections::HashSet, ptr};

use super::*;

/// Every number of Microsoft's reference that a mail client can meet.
const AADSTS: [u32; 116] = [
    16000, 28002, 28003, 40008, 40009, 40010, 40011, 40012, 40013, 40014, 40015, 50001, 50005, 50011, 50020, 50033,
    50034, 50053, 50055, 50057, 50058, 50059, 50072, 50074, 50076, 50078, 50079, 50087, 50089, 50105, 50126, 50128,
    50131, 50132, 50133, 50144, 50158, 50173, 50194, 50196, 51004, 53000, 53001, 53002, 53003, 54005, 65001, 65004,
    70000, 70001, 70002, 70008, 70011, 70016, 70018, 70019, 70020, 70043, 80001, 80002, 80003, 80004, 80005, 80006,
    80007, 80008, 80009, 80010, 80011, 80012, 80013, 80014, 90002, 90006, 90008, 90012, 90019, 90024, 90033, 90055,
    90090, 90094, 90095, 90124, 90130, 500011, 530032, 530035, 650052, 650056, 650057, 700011, 700016, 700022, 700023,
    700025, 700027, 700030, 700082, 700084, 900023, 7000112, 7000215, 7000218, 7000222, 9001023, 9002332, 65006,
    7000229, 700024, 9002346, 9002327, 28000, 500341, 90072, 530003,
];

#[test]
fn the_table_can_be_read() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("remedies.json")).unwrap();
    assert_eq!(rows.len(), ROWS.len());
}

#[test]
fn every_aadsts_number_has_a_sentence_of_its_own_row_and_its_link() {
    for number in AADSTS {
        let remedy = by_aadsts(number).unwrap_or_else(|| panic!("AADSTS{number} is missing"));
        assert_eq!(remedy.link().unwrap(), format!("https://login.microsoftonline.com/error?code={number}"));
    }
    let listed: usize = ROWS.iter().map(|row| if let Match::Aadsts(list) = &row.by { list.len() } else { 0 }).sum();
    assert_eq!(listed, AADSTS.len(), "the list above and the table are one");
    assert!(by_aadsts(1).is_none(), "an unknown number keeps the sentence of its `error`");
}

#[test]
fn every_row_is_found_by_all_it_names() {
    let mut seen = HashSet::new();
    for row in ROWS.iter() {
        let mut check = |name: String, found: Option<Remedy>| {
            assert!(
                ptr::eq(found.unwrap_or_else(|| panic!("{name} is not found")).row, row),
                "{name} finds another row"
            );
            assert!(seen.insert(name.clone()), "{name} stands there twice");
        };
        match &row.by {
            Match::Error(list) => list.iter().for_each(|e| check(format!("error {e}"), by_error(e, false))),
            Match::ErrorOfCode(list) => list.iter().for_each(|e| check(format!("code {e}"), by_error(e, true))),
            Match::Suberror(list) => list.iter().for_each(|e| check(format!("suberror {e}"), by_suberror(e))),
            Match::Aadsts(list) => list.iter().for_each(|n| check(format!("AADSTS{n}"), by_aadsts(*n))),
            Match::Imap(list) => list.iter().for_each(|e| check(format!("imap {e}"), by_imap(e))),
            Match::Ews(list) => list.iter().for_each(|e| check(format!("ews {e}"), by_ews(e))),
            Match::Graph(list) => list.iter().for_each(|e| check(format!("graph {e}"), by_graph(e))),
            Match::Gmail(list) => list.iter().for_each(|e| check(format!("gmail {e}"), by_gmail(e))),
            Match::Smtp(by) => {
                assert!(by.code.is_some() || by.text.is_some() || !by.words.is_empty());
                let code = by.code.as_deref().unwrap_or("5.9.9");
                let class = code.get(..1).filter(|class| *class != "5").unwrap_or("5");
                // Each word once, beside the first of the other lists.
                let most = by.words.iter().map(Vec::len).max().unwrap_or(1);
                for number in 0..most {
                    let words = by.words.iter().filter_map(|any| any.get(number).or(any.first()));
                    let words = words.map(String::as_str).collect::<Vec<_>>().join(", ");
                    let reply = format!("{class}50 {code} {} {words}.", by.text.as_deref().unwrap_or("No"));
                    check(format!("smtp {reply}"), by_smtp(&reply));
                }
            }
        }
    }
}

#[test]
fn every_sentence_is_one_that_names_who_acts() {
    for row in ROWS.iter() {
        let sentence = &row.sentence;
        assert!(sentence.ends_with('.') && !sentence.contains(". "), "{sentence}");
        let names = sentence.to_lowercase().contains(row.who.name());
        assert!(names, "`{}` does not name the {}", sentence, row.who.name());
        assert!(row.what.as_ref().is_none_or(|what| what.ends_with('.')), "{:?}", row.what);
        // Beside an `error`, which has its own.
        let by_number = matches!(row.by, Match::Aadsts(_) | Match::Suberror(_));
        assert!(row.what.is_some() || by_number, "{sentence}");
        let of_sign_in = by_number || matches!(row.by, Match::Error(_));
        assert_eq!(row.field.is_some(), row.kind == Kind::Settings && of_sign_in, "{sentence}");
        assert!(row.link.as_ref().is_some_and(|link| link.starts_with("https://")), "{sentence}");
    }
}

#[test]
fn the_more_particular_smtp_row_comes_first() {
    let tenant =
        by_smtp("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.");
    assert!(tenant.unwrap().sentence().contains("SmtpClientAuthenticationDisabled"));
    let policy =
        by_smtp("535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults");
    assert!(policy.unwrap().sentence().contains("Conditional Access"));
    // 5.7.3 is not a part of 5.7.30, and no number is found inside a text.
    assert!(by_smtp("550 5.7.30 Basic authentication is not supported").unwrap().sentence().contains("SMTP.SendAsApp"));
    assert!(by_smtp("550 5.7.31 something else").is_none());
}

/// What Exchange says, and what is done about it.
#[test]
fn every_ews_code_that_a_mail_client_meets_has_its_kind() {
    for (kind, codes) in [
        (
            Kind::Throttled,
            "ErrorServerBusy ErrorExceededConnectionCount ErrorTooManyObjectsOpened ErrorExceededFindCountLimit \
             ErrorSubmissionQuotaExceeded ErrorExceededMessageLimit ErrorExceededMaxRecipientLimit \
             ErrorExceededMaxRecipientLimitBlock",
        ),
        (
            Kind::Transient,
            "ErrorInternalServerTransientError ErrorMailboxStoreUnavailable ErrorMailboxMoveInProgress \
             ErrorMailboxFailover ErrorConnectionFailed ErrorTimeoutExpired ErrorADUnavailable \
             ErrorNoRespondingCASInDestinationSite ErrorInternalServerError ErrorInvalidSyncStateData ErrorItemNotFound \
             ErrorInvalidChangeKey ErrorIrresolvableConflict",
        ),
        (
            Kind::Settings,
            "ErrorSyncFolderNotFound ErrorFolderNotFound ErrorNonExistentMailbox ErrorMissingEmailAddress \
             ErrorNonPrimarySmtpAddress",
        ),
        (
            Kind::Refused,
            "ErrorAccessDenied ErrorImpersonateUserDenied ErrorImpersonationDenied ErrorSendAsDenied \
             ErrorInvalidRecipients ErrorMissingRecipients",
        ),
        (
            Kind::AdminRequired,
            "ErrorAccountDisabled ErrorPasswordExpired ErrorInvalidLicense ErrorQuotaExceeded \
             ErrorMessageSubmissionBlocked ErrorMessageBlocked ErrorAccountSuspend ErrorOrganizationAccessBlocked",
        ),
        (Kind::TooLarge, "ErrorMessageSizeExceeded"),
        (
            Kind::ServerMisbehaved,
            "ErrorMimeContentInvalid ErrorMimeContentInvalidBase64String ErrorContentConversionFailed \
             ErrorMimeContentConversionFailed ErrorItemCorrupt",
        ),
        (
            Kind::Unsupported,
            "ErrorInvalidServerVersion ErrorIncorrectSchemaVersion ErrorInvalidSchemaVersionForMailboxVersion",
        ),
    ] {
        for code in codes.split_whitespace() {
            assert_eq!(by_ews(code).map(Remedy::kind), Some(kind), "{code}");
        }
    }
    assert!(by_ews("ErrorOfTheFuture").is_none());
}
