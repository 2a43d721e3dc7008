//! Where the library may connect to. Checked on the address that is really connected to, never on the name.

use std::net::IpAddr;

use crate::error::{Error, Kind, Result};

/// Addresses that no mail server has, and that an attacker who may type a host name would like to reach (cloud
/// metadata services above all), are always refused. Private networks are where on-premises Exchange lives, so they are
/// allowed unless the plugin's configuration says `"private_networks": "deny"`.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    pub deny_private_networks: bool,
}

impl Egress {
    pub fn check(&self, host: &str, address: IpAddr) -> Result<()> {
        let address = match address {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
            v4 => v4,
        };
        let refused = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified(),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified(),
        };
        let private = match address {
            IpAddr::V4(v4) => v4.is_private() || v4.is_loopback(),
            IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback(),
        };
        if refused || (private && self.deny_private_networks) {
            return Err(Error::new(Kind::Refused, format!("Connections to {host} ({address}) are not allowed here."))
                .remedy("Use the public name of the mail server, or ask the operator of this helpdesk to allow the address."));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_are_never_reached() {
        let open = Egress::default();
        for refused in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1"] {
            assert!(open.check("x", refused.parse().unwrap()).is_err(), "{refused}");
        }
        assert!(open.check("x", "10.1.2.3".parse().unwrap()).is_ok());
        let strict = Egress { deny_private_networks: true };
        for refused in ["10.1.2.3", "127.0.0.1", "::1", "fd00::1"] {
            assert!(strict.check("x", refused.parse().unwrap()).is_err(), "{refused}");
        }
        assert!(strict.check("x", "93.184.215.14".parse().unwrap()).is_ok());
    }
}
