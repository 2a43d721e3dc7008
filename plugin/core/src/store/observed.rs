//! Every operation of the store passes the seam.

use std::sync::Arc;

use super::{Record, Resealed, Store, Table};
use crate::{
    error::{Error, Kind, Result},
    seam,
};

pub struct Observed(pub Arc<dyn Store>);

impl Store for Observed {
    fn behind(&self) -> Option<&dyn Store> {
        Some(&*self.0)
    }

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

    fn reseal(&self) -> Result<Resealed> {
        step("store.reseal")?;
        self.0.reseal()
    }
}

fn step(name: &'static str) -> Result<()> {
    seam::step(name).map_err(|e| Error::new(Kind::Transient, "The store cannot be reached.").source_error(e))
}
