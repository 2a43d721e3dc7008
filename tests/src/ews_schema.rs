//! Do SOAP envelopes of EWS fit Microsoft's schema? Asks `xmllint` (Debian: libxml2-utils).

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::{Error, Result, process};

/// Names the folder with `messages.xsd` and `types.xsd`; any Exchange server has them under `/EWS/`.
pub const FOLDER: &str = "EWS_XSD_DIR";

/// SOAP 1.1 around the operations, strictly: the Body holds an element that `messages.xsd` declares, or a fault.
const ENVELOPE: &str = r#"<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"
    xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" targetNamespace="http://schemas.xmlsoap.org/soap/envelope/"
    elementFormDefault="qualified">
  <xs:import namespace="http://www.w3.org/XML/1998/namespace" schemaLocation="xml.xsd"/>
  <xs:import namespace="http://schemas.microsoft.com/exchange/services/2006/messages" schemaLocation="messages.xsd"/>
  <xs:import namespace="http://schemas.microsoft.com/exchange/services/2006/types" schemaLocation="types.xsd"/>
  <xs:element name="Envelope"><xs:complexType><xs:sequence>
    <xs:element name="Header" minOccurs="0"><xs:complexType><xs:sequence>
      <xs:any processContents="strict" minOccurs="0" maxOccurs="unbounded"/>
    </xs:sequence></xs:complexType></xs:element>
    <xs:element name="Body"><xs:complexType><xs:sequence>
      <xs:any processContents="strict"/>
    </xs:sequence></xs:complexType></xs:element>
  </xs:sequence></xs:complexType></xs:element>
  <xs:element name="Fault"><xs:complexType><xs:sequence>
    <xs:any processContents="skip" maxOccurs="unbounded"/>
  </xs:sequence></xs:complexType></xs:element>
</xs:schema>
"#;

/// What `types.xsd` takes from this namespace; it does not say where it lies.
const XML_LANG: &str = r#"<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"
    targetNamespace="http://www.w3.org/XML/1998/namespace"><xs:attribute name="lang" type="xs:language"/></xs:schema>
"#;

pub struct Schema {
    folder: TempDir,
    xmllint: PathBuf,
}

impl Schema {
    /// `None`, and a line on standard error, when [`FOLDER`] is not set.
    ///
    /// # Errors
    /// xmllint is not installed, or the schemas are not in the folder.
    #[allow(clippy::print_stderr)]
    pub fn find() -> Result<Option<Self>> {
        let Some(source) = env::var_os(FOLDER) else {
            eprintln!("SKIPPED: {FOLDER} is not set");
            return Ok(None);
        };
        let folder = tempfile::Builder::new().prefix("ews-schema").tempdir()?;
        for name in ["messages.xsd", "types.xsd"] {
            let from = Path::new(&source).join(name);
            fs::copy(&from, folder.path().join(name)).map_err(Error::doing(from.display()))?;
        }
        fs::write(folder.path().join("envelope.xsd"), ENVELOPE)?;
        fs::write(folder.path().join("xml.xsd"), XML_LANG)?;
        Ok(Some(Self { folder, xmllint: process::installed(&["/usr/bin/xmllint"])? }))
    }

    /// # Errors
    /// What xmllint says of this envelope.
    pub fn validate(&self, envelope: &str) -> Result<()> {
        let mut child = Command::new(&self.xmllint)
            .args(["--noout", "--nonet", "--huge", "--schema"])
            .arg(self.folder.path().join("envelope.xsd"))
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::doing("running xmllint"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(envelope.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::new(format!("{}{envelope}", String::from_utf8_lossy(&output.stderr))))
    }
}
