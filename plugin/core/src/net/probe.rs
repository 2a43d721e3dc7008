//! A connection looked at step by step, for the diagnosis: which addresses, which of them answers, which certificate is
//! shown and why it is trusted or not. Verification is the same as everywhere; here it is also written down.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Net, Proxy, Silent, connect, http::Http, resolve, tls, unreachable_error};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::{Error, Kind, Result},
    guard, limits, seam,
};

/// The address that answered, and those before it that did not.
pub struct Answered {
    pub address: SocketAddr,
    pub took: Duration,
    pub silent: Vec<Silent>,
}

/// What the server's certificate says of itself; verified or not.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub subject: String,
    pub issuer: String,
    /// Names and addresses it is good for.
    pub names: Vec<String>,
    pub not_after: UnixSeconds,
    /// `None`: by nothing.
    pub trusted_by: Option<TrustedBy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedBy {
    Platform,
    CaFile,
}

/// Holds what the last handshake of a [`Net::watched`] showed.
#[derive(Clone)]
pub struct Watch(Arc<Watching>);

impl Watch {
    /// `None`: no handshake came as far as a certificate, or it cannot be read.
    pub fn certificate(&self) -> Option<Certificate> {
        let seen = seam::lock("net.probe", &self.0.seen).clone()?;
        guard::guarded("the certificate parser", || Ok(describe(&seen))).ok().flatten()
    }
}

impl Net {
    /// What the name stands for.
    ///
    /// # Errors
    /// `Transient` when the name is not found or nobody answers in time.
    pub fn addresses(&self, host: &str, port: u16, deadline: Deadline) -> Result<Vec<SocketAddr>> {
        resolve(host, port, deadline.at_most(limits::CONNECT_TIMEOUT))
    }

    /// Connects as mail does, and hangs up.
    ///
    /// # Errors
    /// `Refused` by the egress policy; `Transient` when none answers. The second value tells of each.
    pub fn first_answering(
        &self,
        host: &str,
        addresses: &[SocketAddr],
        deadline: Deadline,
    ) -> Result<Answered, (Error, Vec<Silent>)> {
        let deadline = deadline.at_most(limits::CONNECT_TIMEOUT);
        let permitted = self.egress.permitted(host, addresses.to_vec()).map_err(|refusal| (refusal, Vec::new()))?;
        let Some(port) = permitted.first().map(SocketAddr::port) else {
            return Err((Error::new(Kind::Transient, format!("The name {host} has no address.")), Vec::new()));
        };
        match connect::race(&permitted, deadline) {
            Ok(connect::Connected { address, took, silent, .. }) => Ok(Answered { address, took, silent }),
            Err(silent) => {
                let again = |one: &Silent| Silent { address: one.address, why: copy(&one.why) };
                let told = silent.iter().map(again).collect();
                Err((unreachable_error(host, port, silent), told))
            }
        }
    }

    /// Has the proxy connect, and hangs up.
    ///
    /// # Errors
    /// What the proxy says.
    pub fn tunnel(&self, proxy: &Proxy, host: &str, port: u16, deadline: Deadline) -> Result<Duration> {
        let begun = seam::instant();
        proxy.connect(&self.egress, host, port, deadline.at_most(limits::CONNECT_TIMEOUT))?;
        Ok(seam::instant().saturating_duration_since(begun))
    }

    /// The same way out, on which each handshake's certificate is written down.
    ///
    /// # Errors
    /// `Settings` when the CA file cannot be used any more.
    pub fn watched(&self) -> Result<(Self, Watch)> {
        let provider = Arc::new(crypto::ring::default_provider());
        let (platform, ca_file) = (tls::platform_roots()?, self.ca_file.as_deref());
        let watching = Arc::new(Watching {
            bundle: ca_file.map(|path| bundle_only(path, &provider)).transpose()?.flatten(),
            platform: verifier(platform.as_ref().clone(), &provider),
            provider,
            seen: Mutex::default(),
        });
        let config = tls::versions(&watching.provider)?
            .dangerous()
            .with_custom_certificate_verifier(watching.clone())
            .with_no_client_auth();
        let config: Arc<ClientConfig> = Arc::new(config);
        let http = Http::new(config.clone(), self.egress.clone())?.through(self.proxy.clone());
        Ok((Self { tls: config, http, ..self.clone() }, Watch(watching)))
    }
}

/// Either of the two that a connection trusts elsewhere in one: so it is known which of them did.
#[derive(Debug)]
struct Watching {
    platform: Option<Arc<WebPkiServerVerifier>>,
    bundle: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<Seen>>,
}

#[derive(Clone, Debug)]
struct Seen {
    certificate: CertificateDer<'static>,
    trusted_by: Option<TrustedBy>,
}

impl ServerCertVerifier for Watching {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let by = |verifier: &Option<Arc<WebPkiServerVerifier>>| match verifier {
            Some(verifier) => {
                verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).map(drop)
            }
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let unknown = rustls::Error::from(CertificateError::UnknownIssuer);
        let (trusted_by, refusal) = match (by(&self.platform), by(&self.bundle)) {
            (Ok(()), _) => (Some(TrustedBy::Platform), None),
            (_, Ok(())) => (Some(TrustedBy::CaFile), None),
            // Who knows the issuer knows better what else is wrong.
            (platform, Err(bundle)) if bundle == unknown => (None, platform.err()),
            (_, Err(bundle)) => (None, Some(bundle)),
        };
        *seam::lock("net.probe", &self.seen) = Some(Seen { certificate: end_entity.clone().into_owned(), trusted_by });
        refusal.map_or_else(|| Ok(ServerCertVerified::assertion()), Err)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// io::Error cannot be cloned.
fn copy(e: &io::Error) -> io::Error {
    e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)
}

fn bundle_only(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Option<Arc<WebPkiServerVerifier>>> {
    let mut roots = RootCertStore::empty();
    tls::add_bundle(&mut roots, path)?;
    Ok(verifier(roots, provider))
}

/// `None` without roots: a machine that trusts nobody.
fn verifier(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok()
}

fn describe(seen: &Seen) -> Option<Certificate> {
    let (_, certificate) = X509Certificate::from_der(&seen.certificate).ok()?;
    let shown = |text: String| -> String {
        text.chars().filter(|c| !c.is_control()).take(limits::CERTIFICATE_NAME_MAX).collect()
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map_or_else(Vec::new, |names| {
        names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                x509_parser::prelude::GeneralName::DNSName(name) => Some(shown((*name).to_owned())),
                x509_parser::prelude::GeneralName::IPAddress(bytes) => address(bytes),
                _ => None,
            })
            .take(limits::CERTIFICATE_NAMES_SHOWN)
            .collect()
    });
    Some(Certificate {
        subject: shown(certificate.subject().to_string()),
        issuer: shown(certificate.issuer().to_string()),
        names,
        not_after: certificate.validity().not_after.timestamp(),
        trusted_by: seen.trusted_by,
    })
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|v4| std::net::IpAddr::from(v4).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|v6| std::net::IpAddr::from(v6).to_string())).ok()
}
