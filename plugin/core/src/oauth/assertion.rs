//! Signed statements (RFC 7523) that take the place of a secret: of the client about itself, and of a Google service
//! account about the mailbox it acts for. Certificate and keys are read again for each one, so that they can be replaced
//! on disk at any time.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls::{
    SignatureScheme,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SigningKey},
};
use serde::Deserialize;
use serde_json::{Value, json};
use x509_parser::parse_x509_certificate;

use super::failure::Failure;
use crate::{
    clock::UnixSeconds,
    error::{Error, Kind, Result},
    hex, limits,
    machine::Lack,
    secret::Secret,
    settings::{Account, CertificateRef, Client, Machine, SecretRef},
};

/// Of `jti`: no two assertions are alike (RFC 7523 section 3).
const ID_BYTES: usize = 16;
const CERTIFICATE: (&str, &str) = ("/advanced/client_certificate/certificate", "Certificate");
const PRIVATE_KEY: (&str, &str) = ("/advanced/client_certificate/private_key", "Private Key");
const NO_ISSUER: &str = "The client certificate names the issuer as its audience, and nothing is entered here; enter the \
    provider's issuer, or choose token_endpoint as Audience.";
const SERVICE_ACCOUNT: (&str, &str) = ("/advanced/service_account", "Service Account Key");

/// How an RSA key signs. An EC key on P-256 always signs by ES256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// RS256: what every server must know (RFC 7518 3.1).
    Pkcs1,
    /// PS256: what Microsoft asks for.
    Pss,
}

/// `client_assertion` (RFC 7523 2.2 and 3). Its audience is the token endpoint, the one place it is made for, unless the
/// settings name the issuer. It has no `nbf`, which is OPTIONAL: a clock three seconds ahead would make it "not yet valid".
///
/// # Errors
/// `Settings`, at the certificate or the key: cannot be read, is not PEM, do not belong together, or the certificate is
/// not valid now.
pub(super) fn of_client(
    client: &Client,
    reference: &CertificateRef,
    padding: Padding,
    now: UnixSeconds,
) -> Result<Secret> {
    let (certificate, key) = certified(reference, now)?;
    let (algorithm, scheme) = algorithm(&*key, padding).map_err(|why| fault(PRIVATE_KEY, why))?;
    let mut header = json!({
        "alg": algorithm, "typ": "JWT",
        // RFC 7515 4.1.8; servers older than it look for 4.1.7 (AD FS).
        "x5t#S256": BASE64_URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, &certificate)),
        "x5t": BASE64_URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &certificate)),
    });
    if let Some(id) = &reference.key_id {
        header["kid"] = json!(id);
    }
    let audience = match (&client.issuer, reference.names_issuer) {
        (Some(issuer), true) => issuer.as_str(),
        (None, true) => return Err(Failure::field("/advanced/issuer", "Issuer", NO_ISSUER).to_error()),
        (_, false) => client.token_url.as_str(),
    };
    let claims = json!({
        "iss": client.client_id, "sub": client.client_id, "aud": audience, "jti": hex::random::<ID_BYTES>()?,
        "iat": now, "exp": now + limits::ASSERTION_LIFETIME,
    });
    sign(&*key, scheme, &header, &claims)
}

/// `assertion` of a service account with domain-wide delegation (RFC 7523 2.1; Google, "Using OAuth 2.0 for Server to
/// Server Applications").
///
/// # Errors
/// `Settings`, at the key: cannot be read, or is not the JSON key of a service account.
pub(super) fn of_service_account(account: &Account, scope: &str, now: UnixSeconds) -> Result<Secret> {
    #[derive(Deserialize)]
    struct KeyFile {
        r#type: String,
        client_email: String,
        #[serde(with = "super::grant::secret_text")]
        private_key: Secret,
        private_key_id: Option<String>,
    }
    let wrong = |why: &str| fault(SERVICE_ACCOUNT, why);
    let reference = account.client.service_account.as_ref().ok_or_else(|| wrong("No key is named"))?;
    let text = read(reference, SERVICE_ACCOUNT)?;
    // The words of serde may quote the key.
    let file: KeyFile = serde_json::from_str(text.expose())
        .map_err(|_| wrong("It is not the JSON key of a service account, as Google gives it out"))?;
    if file.r#type != "service_account" {
        return Err(wrong("It is the key of something other than a service account"));
    }
    let key = private_key(&file.private_key).map_err(wrong)?;
    let (algorithm, scheme) = algorithm(&*key, Padding::Pkcs1).map_err(wrong)?;
    let mut header = json!({"alg": algorithm, "typ": "JWT"});
    if let Some(id) = file.private_key_id {
        header["kid"] = json!(id);
    }
    let claims = json!({
        "iss": file.client_email, "sub": account.username, "scope": scope, "aud": account.client.token_url.as_str(),
        "jti": hex::random::<ID_BYTES>()?, "iat": now, "exp": now + limits::ASSERTION_LIFETIME,
    });
    sign(&*key, scheme, &header, &claims)
}

fn certified(reference: &CertificateRef, now: UnixSeconds) -> Result<(CertificateDer<'static>, Arc<dyn SigningKey>)> {
    let certificate = certificate(reference)?;
    let (from, to) = validity(&certificate)?;
    if now >= to {
        return Err(fault(CERTIFICATE, format!("The certificate expired on {}", day(to))));
    }
    // Clocks may differ; a certificate made a minute ago is meant to be used.
    if now + limits::ID_TOKEN_SKEW < from {
        return Err(fault(CERTIFICATE, format!("The certificate is not valid before {}", day(from))));
    }
    let text = read(&reference.private_key, PRIVATE_KEY)?;
    let key = private_key(&text).map_err(|why| fault(PRIVATE_KEY, why))?;
    // Also without a verdict of rustls a server would refuse what does not fit.
    match CertifiedKey::new(vec![certificate.clone()], key.clone()).keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(fault(PRIVATE_KEY, "The key does not belong to the certificate"))
        }
        _ => Ok((certificate, key)),
    }
}

/// The first one of the file: a chain may follow it (RFC 7468 section 5.1 leaves the order to us; tools put it first).
fn certificate(reference: &CertificateRef) -> Result<CertificateDer<'static>> {
    let text = read(&reference.certificate, CERTIFICATE)?;
    CertificateDer::from_pem_slice(text.expose().as_bytes())
        .map_err(|_| fault(CERTIFICATE, "It does not hold a certificate in PEM form"))
}

/// When the client certificate ends.
pub(super) fn certificate_end(reference: &CertificateRef) -> Result<UnixSeconds> {
    validity(&certificate(reference)?).map(|(_, to)| to)
}

fn validity(certificate: &CertificateDer<'_>) -> Result<(UnixSeconds, UnixSeconds)> {
    let (_, parsed) = parse_x509_certificate(certificate)
        .map_err(|_| fault(CERTIFICATE, "It holds a certificate that cannot be understood"))?;
    Ok((parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()))
}

fn private_key(pem: &Secret) -> Result<Arc<dyn SigningKey>, &'static str> {
    let key = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|_| match pem.expose() {
        text if text.contains("ENCRYPTED") => "The key is protected by a passphrase",
        _ => "It does not hold a private key in PEM form",
    })?;
    any_supported_type(&key).map_err(|_| "It holds a key that cannot be used: RSA of 2048 bits or more, or EC on P-256")
}

/// RFC 7518 3.1.
fn algorithm(key: &dyn SigningKey, padding: Padding) -> Result<(&'static str, SignatureScheme), &'static str> {
    let rsa = match padding {
        Padding::Pkcs1 => ("RS256", SignatureScheme::RSA_PKCS1_SHA256),
        Padding::Pss => ("PS256", SignatureScheme::RSA_PSS_SHA256),
    };
    [rsa, ("ES256", SignatureScheme::ECDSA_NISTP256_SHA256)]
        .into_iter()
        .find(|(_, scheme)| key.choose_scheme(&[*scheme]).is_some())
        .ok_or("It holds a key of a kind that servers do not take: RSA of 2048 bits or more, or EC on P-256")
}

fn sign(key: &dyn SigningKey, scheme: SignatureScheme, header: &Value, claims: &Value) -> Result<Secret> {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let failed = || Error::new(Kind::Internal, "An assertion could not be signed.");
    let signer = key.choose_scheme(&[scheme]).ok_or_else(failed)?;
    let mut signature = signer.sign(signed.as_bytes()).map_err(|e| failed().source_error(e))?;
    if scheme == SignatureScheme::ECDSA_NISTP256_SHA256 {
        signature = r_and_s(&signature).ok_or_else(failed)?;
    }
    Ok(Secret::new(format!("{signed}.{}", encode(&signature))))
}

/// TLS writes an ECDSA signature as a DER SEQUENCE of two INTEGERs, JOSE as two numbers of 32 bytes (RFC 7518 3.4).
fn r_and_s(der: &[u8]) -> Option<Vec<u8>> {
    let (&[0x30, length], mut rest) = der.split_first_chunk::<2>()? else { return None };
    if usize::from(length) != rest.len() {
        return None;
    }
    let mut out = Vec::with_capacity(64);
    for _ in 0..2 {
        let (&[0x02, length], after) = rest.split_first_chunk::<2>()? else { return None };
        let (number, after) = after.split_at_checked(usize::from(length))?;
        let start = number.iter().take_while(|byte| **byte == 0).count();
        let digits = &number[start..];
        out.resize(out.len() + 32usize.checked_sub(digits.len())?, 0);
        out.extend_from_slice(digits);
        rest = after;
    }
    rest.is_empty().then_some(out)
}

fn read(reference: &SecretRef, field: (&'static str, &'static str)) -> Result<Secret> {
    // A file that cannot be read for want of a descriptor is no wrong setting.
    reference.resolve_document(&Machine).map_err(|why| match Lack::of_now() {
        Some(lack) => lack.error(&format!("{} cannot be read.", field.1)),
        None => fault(field, why),
    })
}

fn fault((pointer, label): (&'static str, &'static str), wrong: impl AsRef<str>) -> Error {
    let right = match pointer {
        pointer if pointer == CERTIFICATE.0 => "put the certificate that is registered at the provider there, as PEM",
        pointer if pointer == PRIVATE_KEY.0 => "put the unencrypted key of the certificate there, as PEM",
        _ => "put the JSON key there that Google gives out for the service account",
    };
    Failure::field(pointer, label, format!("{}; {right}.", wrong.as_ref())).to_error()
}

pub(super) fn day(at: UnixSeconds) -> String {
    time::OffsetDateTime::from_unix_timestamp(at).map_or_else(|_| at.to_string(), |moment| moment.date().to_string())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;
    use crate::oauth::tests_support::account;

    const NOW: UnixSeconds = 1_800_000_000;

    /// A certificate on P-256 that is valid from 2026 to the end of `year`.
    fn write_pair(dir: &Path, year: i32) -> rcgen::KeyPair {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(year, 12, 31);
        fs::write(dir.join("certificate.pem"), parameters.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        key
    }

    fn reference(dir: &Path) -> CertificateRef {
        let file = |name: &str| Arc::new(SecretRef::File(dir.join(name).to_str().unwrap().to_owned()));
        CertificateRef {
            certificate: file("certificate.pem"),
            private_key: file("key.pem"),
            key_id: None,
            names_issuer: false,
        }
    }

    fn part(token: &Secret, index: usize) -> Value {
        let part = token.expose().split('.').nth(index).unwrap();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    fn pointer(error: &Error) -> String {
        error.faults()[0].pointer.clone()
    }

    #[test]
    fn a_key_replaced_on_disk_signs_the_next_assertion() {
        let dir = tempfile::tempdir().unwrap();
        let client = account("https://idp.test").client;
        for _ in 0..2 {
            let key = write_pair(dir.path(), 2030);
            let token = of_client(&client, &reference(dir.path()), Padding::Pss, NOW).unwrap();
            let (signed, signature) = token.expose().rsplit_once('.').unwrap();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key_raw())
                .verify(signed.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap())
                .unwrap();
            let (header, claims) = (part(&token, 0), part(&token, 1));
            assert_eq!(header["alg"], "ES256");
            assert_eq!((header["x5t#S256"].as_str().unwrap().len(), header["x5t"].as_str().unwrap().len()), (43, 27));
            assert_eq!((&claims["iss"], &claims["aud"]), (&json!("client-1"), &json!("https://idp.test/token")));
            assert!(claims["exp"].as_i64().unwrap() - NOW <= 300);
        }
    }

    #[test]
    fn fault_7_key_id_and_audience_are_the_persons_and_there_is_no_nbf() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path(), 2030);
        let mut client = account("https://idp.test").client;
        let mut reference = reference(dir.path());
        let token = of_client(&client, &reference, Padding::Pkcs1, NOW).unwrap();
        assert_eq!((part(&token, 0).get("kid"), part(&token, 1).get("nbf")), (None, None));
        reference.key_id = Some("key-1".into());
        reference.names_issuer = true;
        let error = of_client(&client, &reference, Padding::Pkcs1, NOW).err().unwrap();
        assert_eq!(pointer(&error), "/advanced/issuer");
        client.issuer = Some("https://idp.test/realm".into());
        let token = of_client(&client, &reference, Padding::Pkcs1, NOW).unwrap();
        assert_eq!(
            (&part(&token, 0)["kid"], &part(&token, 1)["aud"]),
            (&json!("key-1"), &json!("https://idp.test/realm"))
        );
    }

    #[test]
    fn the_end_of_a_certificate_is_read_from_it() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path(), 2031);
        assert_eq!(day(certificate_end(&reference(dir.path())).unwrap()), "2031-12-31");
    }

    #[test]
    fn what_is_wrong_with_certificate_or_key_is_named() {
        let client = account("https://idp.test").client;
        let refused = |dir: &Path| of_client(&client, &reference(dir), Padding::Pkcs1, NOW).err().unwrap();
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_pair(dir.path(), 2026);
        let expired = refused(dir.path());
        assert!(expired.message().contains("expired on 2026-12-31"), "{expired}");
        assert_eq!(pointer(&expired), CERTIFICATE.0);
        write_pair(dir.path(), 2030);
        write_pair(other.path(), 2030);
        fs::copy(other.path().join("key.pem"), dir.path().join("key.pem")).unwrap();
        let mismatch = refused(dir.path());
        assert!(mismatch.message().contains("does not belong"), "{mismatch}");
        assert_eq!(pointer(&mismatch), PRIVATE_KEY.0);
        for (content, words) in [
            ("canary", "in PEM form"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nY2FuYXJ5\n-----END ENCRYPTED PRIVATE KEY-----\n", "passphrase"),
            ("-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n", "cannot be used"),
        ] {
            fs::write(dir.path().join("key.pem"), content).unwrap();
            let error = refused(dir.path());
            assert!(error.message().contains(words), "{error}");
            assert!(!error.to_json().to_string().contains("canary"));
        }
        fs::remove_file(dir.path().join("certificate.pem")).unwrap();
        assert_eq!((refused(dir.path()).kind(), pointer(&refused(dir.path()))), (Kind::Settings, CERTIFICATE.0.into()));
    }

    #[test]
    fn a_file_that_is_no_service_account_key_is_named_and_not_quoted() {
        let mut account = account("https://idp.test");
        for text in [
            "canary",
            "{}",
            r#"{"type":"authorized_user","client_email":"a@b","private_key":"canary"}"#,
            r#"{"type":"service_account","client_email":"a@b","private_key":"canary"}"#,
        ] {
            account.client.service_account = Some(Arc::new(SecretRef::Literal(Secret::new(text))));
            let error = of_service_account(&account, "mail", NOW).err().unwrap();
            assert_eq!(pointer(&error), SERVICE_ACCOUNT.0);
            assert!(!error.to_json().to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn short_numbers_of_a_signature_keep_their_place() {
        let der = [0x30, 0x08, 0x02, 0x01, 0x07, 0x02, 0x03, 0x00, 0x80, 0x01];
        let flat = r_and_s(&der).unwrap();
        assert_eq!((flat.len(), flat[31], &flat[62..]), (64, 7, &[0x80, 0x01][..]));
        for broken in [&der[..9], &[], &[0x30, 0x00], &[0x30, 0x02, 0x02, 0x05]] {
            assert_eq!(r_and_s(broken), None);
        }
    }
}
