//! The key that signs Message-IDs: one per store, made by whoever needs it first.

use std::sync::OnceLock;

use crate::{
    error::{Error, Kind, Result},
    limits,
    message::Signer,
    secret::Secret,
    store::{Store, Table},
};

const ID: &str = "message-id";

/// Read once; shared by all handles of a plugin.
#[derive(Default)]
pub struct Signing(OnceLock<Signer>);

impl Signing {
    /// # Errors
    /// Those of the store, until it was read once.
    pub fn signer(&self, store: &dyn Store) -> Result<&Signer> {
        if let Some(signer) = self.0.get() {
            return Ok(signer);
        }
        let signer = Signer::new(&key(store)?)?;
        Ok(self.0.get_or_init(|| signer))
    }
}

/// Of many nodes that begin at once, one writes it and the others read it.
fn key(store: &dyn Store) -> Result<Secret> {
    for _ in 0..limits::CLAIM_ATTEMPTS {
        if let Some(record) = store.read(Table::Key, ID)? {
            let text = std::str::from_utf8(&record.bytes)
                .map_err(|_| Error::new(Kind::Internal, "The key that signs Message-IDs is damaged."))?;
            return Ok(Secret::new(text));
        }
        let fresh = Signer::fresh_key()?;
        if store.write(Table::Key, ID, None, fresh.expose().as_bytes())?.is_some() {
            return Ok(fresh);
        }
    }
    Err(Error::new(Kind::Transient, "The key that signs Message-IDs is being written by another process."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message::signature::Origin,
        store::{SealingKey, SqliteStore},
    };

    #[test]
    fn all_handles_over_one_store_sign_with_one_key() {
        let key =
            SealingKey::from_config(&serde_json::json!({"value": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}));
        let store = SqliteStore::in_memory(key.unwrap()).unwrap();
        let (one, other) = (Signing::default(), Signing::default());
        let id = one.signer(&store).unwrap().message_id(&"a@b.test".parse().unwrap(), Some("1")).unwrap();
        let ours = Origin::Ours { request_id: Some("1".into()) };
        assert_eq!(other.signer(&store).unwrap().origin(&id), ours);
    }
}
