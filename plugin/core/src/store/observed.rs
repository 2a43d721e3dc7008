//! Every operation of the store passes the seam.

use std::sync::Arc;

use super::{Record, Replication, Resealed, Store, Table};
use crate::{
    error::{Error, Kind, Result},
    seam,
};

pub struct Observed(pub Arc<dyn Store>);

impl Store for Observed {
    fn read(&self, table: Table, id: &str) -> Result<Option<Record>> {
        step("store.read")?;
        self.0.read(table, id)
    }

    fn write(&self, table: Table, id: &str, expected: Option<u64>, bytes: &[u8]) -> Result<Option<u64>> {
        step("store.write")?;
        self.0.write(table, id, expected, bytes)
    }

    fn take(&self, table: Table, id: &str) -> Result<Option<Record>> {
        step("store.take")?;
        self.0.take(table, id)
    }

    fn delete(&self, table: Table, id: &str) -> Result<()> {
        step("store.delete")?;
        self.0.delete(table, id)
    }

    fn forget_old(&self, table: Table, seconds: i64, most: u32) -> Result<u32> {
        step("store.forget_old")?;
        self.0.forget_old(table, seconds, most)
    }

    fn is_shared(&self) -> bool {
        self.0.is_shared()
    }

    fn ahead(&self) -> i64 {
        self.0.ahead()
    }

    fn epoch(&self) -> u64 {
        self.0.epoch()
    }

    fn events(&self) -> Vec<String> {
        self.0.events()
    }

    fn replication(&self) -> Result<Option<Replication>> {
        self.0.replication()
    }

    fn reseal(&self) -> Result<Resealed> {
        step("store.reseal")?;
        self.0.reseal()
    }
}

fn step(name: &'static str) -> Result<()> {
    seam::step(name).map_err(|e| Error::new(Kind::Transient, "The store cannot be reached.").source_error(e))
}
