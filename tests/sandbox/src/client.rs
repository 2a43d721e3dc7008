//! What a client needs to meet servers under a certificate authority of their own.

use std::{path::Path, sync::Arc, time::Duration};

use reqwest::blocking;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{Error, Result};

const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Trusts one certificate authority and nothing else.
pub fn tls_config(ca_file: &Path) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).map_err(Error::doing(ca_file.display()))? {
        let certificate = certificate.map_err(Error::doing(ca_file.display()))?;
        roots.add(certificate).map_err(Error::doing(ca_file.display()))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::doing("setting up TLS"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Keeps cookies, follows no redirect.
pub fn http_client(ca_file: &Path) -> Result<blocking::Client> {
    let client = blocking::Client::builder()
        .tls_backend_preconfigured(tls_config(ca_file)?)
        .redirect(reqwest::redirect::Policy::none())
        .cookie_store(true)
        .no_proxy()
        .timeout(SILENCE_TIMEOUT);
    Ok(client.build()?)
}
