//! HTTP to authorization servers.

use std::sync::Arc;

use rustls::ClientConfig;

use super::Egress;
use crate::error::Result;

#[derive(Clone)]
pub struct Http {}

impl Http {
    pub fn new(_tls: Arc<ClientConfig>, _egress: Egress) -> Result<Self> {
        Ok(Self {})
    }
}
