//! A throw-away certificate authority and one server certificate.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::{Error, Result};

/// Names under which the servers are reached. 127.0.0.2 and 127.0.0.3 are for a second server on the same port.
const NAMES: [&str; 4] = ["localhost", "127.0.0.1", "127.0.0.2", "127.0.0.3"];

/// Files below one folder, PEM.
pub struct Ca {
    pub ca_file: PathBuf,
    pub server_certificate: PathBuf,
    pub server_key: PathBuf,
}

impl Ca {
    pub fn create(folder: &Path) -> Result<Self> {
        let (ca, certificate, key) = certificates().map_err(Error::doing("making certificates"))?;
        let files = Self {
            ca_file: folder.join("ca.pem"),
            server_certificate: folder.join("server.pem"),
            server_key: folder.join("server.key"),
        };
        fs::write(&files.ca_file, ca)?;
        fs::write(&files.server_certificate, certificate)?;
        fs::write(&files.server_key, key)?;
        Ok(files)
    }
}

fn certificates() -> Result<(String, String, String), rcgen::Error> {
    let mut ca_params = CertificateParams::new(Vec::new())?;
    ca_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca_params.distinguished_name.push(DnType::CommonName, "oauth-mail tests");
    ca_params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca = ca_params.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca_params, ca_key);

    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok((ca.pem(), certificate.pem(), key.serialize_pem()))
}
