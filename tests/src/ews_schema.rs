//! Do SOAP envelopes of EWS fit Microsoft's schema? Asks `xmllint` (Debian: libxml2-utils).

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
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

/// Microsoft names them beside `Transition`, for which they may stand anyway: a schema must not be ambiguous (XML Schema part 1,
/// Unique Particle Attribution), and some builds of libxml2 refuse it. Time zones use them, which nobody here asks for.
const AMBIGUOUS: [&str; 3] = ["AbsoluteDateTransition", "RecurringDayTransition", "RecurringDateTransition"];

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
            let text = fs::read_to_string(&from).map_err(Error::doing(from.display()))?;
            let is_kept = |line: &&str| !AMBIGUOUS.iter().any(|element| line.contains(&format!("ref=\"t:{element}\"")));
            let text: String = text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
            fs::write(folder.path().join(name), text)?;
        }
        fs::write(folder.path().join("envelope.xsd"), ENVELOPE)?;
        fs::write(folder.path().join("xml.xsd"), XML_LANG)?;
        Ok(Some(Self { folder, xmllint: process::installed(&["/usr/bin/xmllint"])? }))
    }

    /// # Errors
    /// What xmllint says of this envelope.
    pub fn validate(&self, envelope: &str) -> Result<()> {
        self.validate_all([envelope])
    }

    /// All at once: reading the schema takes most of the time.
    ///
    /// # Errors
    /// What xmllint says of those that do not fit.
    pub fn validate_all<'a>(&self, envelopes: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let folder = tempfile::Builder::new().prefix("ews-envelopes").tempdir()?;
        let mut command = Command::new(&self.xmllint);
        command.args(["--noout", "--nonet", "--huge", "--schema"]).arg(self.folder.path().join("envelope.xsd"));
        let mut files = Vec::new();
        for (number, envelope) in envelopes.into_iter().enumerate() {
            let file = folder.path().join(format!("{number}.xml"));
            fs::write(&file, envelope)?;
            files.push((file, envelope));
        }
        if files.is_empty() {
            return Ok(());
        }
        let output =
            command.args(files.iter().map(|(file, _)| file)).output().map_err(Error::doing("running xmllint"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let wrong = files.iter().find(|(file, _)| said.contains(&format!("{} fails", file.display())));
        Err(Error::new(format!("{said}{}", wrong.map_or("", |(_, envelope)| *envelope))))
    }
}
