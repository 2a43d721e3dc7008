//! One TLS policy for HTTP, IMAP and SMTP: TLS 1.2 and 1.3, ring, the platform's roots plus one private CA bundle.
//! Verification cannot be turned off.

use std::{
    ffi::OsString,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{
    error::{Error, Fault, Kind, Result},
    machine, seam,
};

pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let mut roots = platform_roots()?;
    if let Some(path) = ca_file {
        add_bundle(Arc::make_mut(&mut roots), path)?;
    }
    let provider = Arc::new(ring::default_provider());
    Ok(Arc::new(versions(&provider)?.with_root_certificates(roots).with_no_client_auth()))
}

pub(super) fn versions(provider: &Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(Kind::Internal, "TLS could not be set up.").source_error(e))
}

/// The platform's roots, read once per process and place: 140 files, 3 ms and 100 KB of memory.
/// A single unreadable file is not fatal: a private CA may be all that is needed.
///
/// # Errors
/// `Transient`: this machine's limits kept them from being read. They are read again at the next use.
pub(super) fn platform_roots() -> Result<Arc<RootCertStore>> {
    let place = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(std::env::var_os);
    let mut known = seam::lock("tls.roots", &ROOTS);
    if let Some((of, roots)) = &*known
        && *of == place
    {
        return Ok(roots.clone());
    }
    let read = rustls_native_certs::load_native_certs();
    for error in read.errors {
        if let Some(lack) = machine::Lack::of(&error) {
            return Err(lack.error("The trusted certificates of this machine cannot be read.").source_error(error));
        }
    }
    let mut roots = RootCertStore::empty();
    for certificate in read.certs {
        let _ = roots.add(certificate);
    }
    let roots = Arc::new(roots);
    if !roots.is_empty() {
        *known = Some((place, roots.clone()));
    }
    Ok(roots)
}

type Place = [Option<OsString>; 2];

/// The one value that all handles of a process share: it holds nothing of any mailbox.
static ROOTS: Mutex<Option<(Place, Arc<RootCertStore>)>> = Mutex::new(None);

pub(super) fn add_bundle(roots: &mut RootCertStore, path: &Path) -> Result<()> {
    let fault = |message: String| {
        Error::settings(vec![Fault { pointer: "/advanced/ca_file".into(), label: "CA file".into(), message }])
    };
    let pem = fs::read(path).map_err(|e| {
        let doing = format!("The CA file {} cannot be read.", path.display());
        machine::or_else(&doing, e, |e| fault(format!("{} cannot be read: {e}.", path.display())))
    })?;
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
