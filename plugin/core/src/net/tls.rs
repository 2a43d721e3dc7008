//! One TLS policy for HTTP, IMAP and SMTP: TLS 1.2 and 1.3, ring, the platform's roots plus one private CA bundle.
//! Verification cannot be turned off.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::error::{Error, Fault, Kind, Result};

pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let mut roots = platform_roots();
    if let Some(path) = ca_file {
        add_bundle(&mut roots, path)?;
    }
    let provider = Arc::new(ring::default_provider());
    Ok(Arc::new(versions(&provider)?.with_root_certificates(roots).with_no_client_auth()))
}

pub(super) fn versions(provider: &Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(Kind::Internal, "TLS could not be set up.").source_error(e))
}

/// Unreadable ones are not fatal: a private CA may be all that is needed.
pub(super) fn platform_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in rustls_native_certs::load_native_certs().certs {
        let _ = roots.add(certificate);
    }
    roots
}

pub(super) fn add_bundle(roots: &mut RootCertStore, path: &Path) -> Result<()> {
    let fault = |message: String| {
        Error::settings(vec![Fault { pointer: "/advanced/ca_file".into(), label: "CA file".into(), message }])
    };
    let pem = fs::read(path).map_err(|e| fault(format!("{} cannot be read: {e}.", path.display())))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| fault(format!("{} is not a PEM bundle: {e}.", path.display())))?;
        roots
            .add(certificate)
            .map_err(|e| fault(format!("A certificate in {} is not usable: {e}.", path.display())))?;
        count += 1;
    }
    if count == 0 {
        return Err(fault(format!("{} holds no certificate.", path.display())));
    }
    Ok(())
}
