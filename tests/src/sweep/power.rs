//! Power losses of the SQLite store. A process works on a store while a shim (`record.c`) writes down every write and
//! every sync of its files. For each sync the files are then built as a disk may hold them when the power fails just
//! before or just after it: what was not yet synced is there, missing, torn, or there in any order. Each image must
//! open, and hold what the process had been promised: exactly the state after its last finished operation, or after the
//! one it was in.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use oauth_mail_core::store::{self, SealingKey, Store, Table};
use serde_json::json;

use super::{Line, PLANT, Tally};
use crate::{Error, Result, fixture::STORE_KEY, process};

/// The folder in which the process works; set, this program is that process.
pub const FOLDER: &str = "RECORD_FOLDER";
const DATABASE: &str = "store.db";
/// Where the process writes which operation begins and which has ended.
const DIARY: &str = "diary";
/// What a disk writes whole.
const SECTOR: usize = 512;
/// Subsets of sectors per point, drawn by lot.
const LOTS: u64 = 4;

/// One operation on the store.
enum Operation {
    Write(Table, String, Vec<u8>),
    Delete(Table, String),
    Take(Table, String),
    /// Close (which copies the journal into the database and removes it) and open again.
    Reopen,
}

/// In every table small and large records, replaced, taken and deleted; enough that SQLite checkpoints by itself.
fn operations(rounds: usize) -> Vec<Operation> {
    let mut all = Vec::new();
    for round in 0..rounds {
        for (index, table) in Table::ALL.into_iter().enumerate() {
            let id = format!("record {}", round % 3);
            let size = if (round + index).is_multiple_of(5) { 60_000 } else { 300 };
            let bytes = (0..size).map(|at| (at + round * 7 + index) as u8).collect();
            all.push(Operation::Write(table, id.clone(), bytes));
            match (round + index) % 7 {
                3 => all.push(Operation::Delete(table, id)),
                5 => all.push(Operation::Take(table, id)),
                6 => all.push(Operation::Reopen),
                _ => {}
            }
        }
    }
    all
}

/// Name and id of each record, with version and content.
type Content = BTreeMap<(&'static str, String), (u64, Vec<u8>)>;

fn open(url: &str) -> Result<Arc<dyn Store>> {
    let key = SealingKey::from_config(&json!({"value": STORE_KEY})).map_err(Error::doing("the key"))?;
    store::open(url, key).map_err(Error::doing("the store"))
}

fn apply(store: &dyn Store, operation: &Operation) -> oauth_mail_core::Result<()> {
    match operation {
        Operation::Write(table, id, bytes) => {
            let version = store.read(*table, id)?.map(|record| record.version);
            store.write(*table, id, version, bytes).map(drop)
        }
        Operation::Delete(table, id) => store.delete(*table, id),
        Operation::Take(table, id) => store.take(*table, id).map(drop),
        Operation::Reopen => Ok(()),
    }
}

fn content(store: &dyn Store) -> oauth_mail_core::Result<Content> {
    let mut all = Content::new();
    for table in Table::ALL {
        for number in 0..3 {
            let id = format!("record {number}");
            if let Some(record) = store.read(table, &id)? {
                all.insert((table.name(), id), (record.version, record.bytes.to_vec()));
            }
        }
    }
    Ok(all)
}

/// The process that is recorded.
pub fn work(folder: &str, rounds: usize) -> Result<()> {
    let url = format!("sqlite:{folder}/{DATABASE}");
    let mut diary = fs::OpenOptions::new().create(true).append(true).open(Path::new(folder).join(DIARY))?;
    let mut store = Some(open(&url)?);
    note(&mut diary, "end", 0)?;
    for (number, operation) in operations(rounds).iter().enumerate() {
        note(&mut diary, "begin", number + 1)?;
        if let Operation::Reopen = operation {
            store = None;
        }
        let open_store = match store.take() {
            Some(open) => open,
            None => open(&url)?,
        };
        apply(&*open_store, operation).map_err(Error::doing("an operation"))?;
        store = Some(open_store);
        note(&mut diary, "end", number + 1)?;
    }
    Ok(())
}

/// In one write, as it is read.
fn note(diary: &mut fs::File, what: &str, number: usize) -> Result<()> {
    Ok(diary.write_all(format!("{what} {number}\n").as_bytes())?)
}

/// Records `rounds` rounds of operations and looks at every `stride`-th sync.
pub fn sweep(rounds: usize, stride: usize) -> Result<Line> {
    let begun = Instant::now();
    let dir = tempfile::Builder::new().prefix("ompower").tempdir()?;
    let events = record(dir.path(), rounds)?;
    let states = states(rounds)?;
    let mut tally = Tally::default();
    let (mut disk, mut syncs) = (Disk::default(), 0usize);
    // What syncs there costs nothing: thousands of images are opened.
    let memory = Path::new("/dev/shm");
    let memory = tempfile::tempdir_in(if memory.is_dir() { memory } else { dir.path() })?;
    let images = memory.path().join("images");
    for event in &events {
        if let Event::Sync(name) = event
            && name != DIARY
        {
            syncs += 1;
            if syncs.is_multiple_of(stride) {
                disk.images().for_each(|image| tally.add(judge(&images, &image, &disk, &states)));
                disk.apply(event);
                disk.images().for_each(|image| tally.add(judge(&images, &image, &disk, &states)));
                continue;
            }
        }
        disk.apply(event);
    }
    // Nothing is synced at the very end: what was promised must be there all the same.
    disk.images().for_each(|image| tally.add(judge(&images, &image, &disk, &states)));
    if disk.ended + 1 != states.len() {
        tally.note(format_args!("{} of {} operations were recorded", disk.ended, states.len() - 1));
        tally.good = 0;
    }
    Ok(Line {
        name: "power lost at every sync".into(),
        tally,
        about: format!("{} operations, {syncs} syncs, every {stride}. of them, images of each", states.len() - 1),
        took: begun.elapsed(),
    })
}

/// The content of a store after each number of operations.
fn states(rounds: usize) -> Result<Vec<Content>> {
    let model = open("sqlite::memory:")?;
    let mut states = vec![Content::new()];
    for operation in operations(rounds) {
        apply(&*model, &operation).map_err(Error::doing("the model"))?;
        states.push(content(&*model).map_err(Error::doing("the model"))?);
    }
    Ok(states)
}

enum Event {
    Write(String, u64, Vec<u8>),
    Truncate(String, u64),
    Sync(String),
    Unlink(String),
}

fn record(dir: &Path, rounds: usize) -> Result<Vec<Event>> {
    let (source, shim, log, folder) =
        (dir.join("record.c"), dir.join("record.so"), dir.join("log"), dir.join("recorded"));
    fs::write(&source, include_str!("record.c"))?;
    fs::create_dir(&folder)?;
    let output = Command::new(process::on_path("cc")?)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&shim, &source])
        .output()?;
    if !output.status.success() {
        return Err(Error::new(format!("cc: {}", String::from_utf8_lossy(&output.stderr))));
    }
    let mut command = Command::new(env::current_exe()?);
    command.args(["--record-rounds", &rounds.to_string()]).stdin(Stdio::null());
    command.env("LD_PRELOAD", &shim).env(FOLDER, &folder).env("RECORD_LOG", &log);
    if env::var(PLANT).is_ok_and(|plant| plant == "forget-fsync") {
        command.env("RECORD_FORGET", "1");
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(Error::new(format!("what was to be recorded: {}", String::from_utf8_lossy(&output.stdout))));
    }
    events(&fs::read(&log)?)
}

fn events(mut log: &[u8]) -> Result<Vec<Event>> {
    let short = || Error::new("the record ends in the middle");
    let mut all = Vec::new();
    while let Some((head, rest)) = log.split_at_checked(15) {
        let name_length = usize::from(u16::from_ne_bytes([head[1], head[2]]));
        let offset = u64::from_ne_bytes(head[3..11].try_into().map_err(Error::doing("an offset"))?);
        let length = u32::from_ne_bytes(head[11..15].try_into().map_err(Error::doing("a length"))?) as usize;
        let (name, rest) = rest.split_at_checked(name_length).ok_or_else(short)?;
        let (data, rest) = rest.split_at_checked(length).ok_or_else(short)?;
        let name = String::from_utf8_lossy(name).into_owned();
        log = rest;
        // The index of the journal is shared memory: built anew at the next start.
        if name.ends_with("-shm") {
            continue;
        }
        all.push(match head[0] {
            b'W' => Event::Write(name, offset, data.to_vec()),
            b'T' => Event::Truncate(name, offset),
            b'S' => Event::Sync(name),
            b'U' => Event::Unlink(name),
            other => return Err(Error::new(format!("the record holds a {other}"))),
        });
    }
    Ok(all)
}

/// A change that the disk may or may not hold.
#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Default)]
struct Disk {
    files: BTreeMap<String, File>,
    /// Operations that had begun and ended.
    begun: usize,
    ended: usize,
}

type Image = BTreeMap<String, Vec<u8>>;

impl Disk {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Write(name, _, data) if name == DIARY => {
                for line in String::from_utf8_lossy(data).lines() {
                    match line.split_once(' ') {
                        Some(("begin", number)) => self.begun = number.parse().unwrap_or(0),
                        Some(("end", number)) => self.ended = number.parse().unwrap_or(0),
                        _ => {}
                    }
                }
            }
            Event::Write(name, offset, data) => self.file(name).pending.push(Change::Write(*offset, data.clone())),
            Event::Truncate(name, size) => self.file(name).pending.push(Change::Truncate(*size)),
            Event::Sync(name) => {
                if let Some(file) = self.files.get_mut(name) {
                    for change in std::mem::take(&mut file.pending) {
                        apply_change(&mut file.durable, &change);
                    }
                }
            }
            Event::Unlink(name) => {
                self.files.remove(name);
            }
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        self.files.entry(name.to_owned()).or_default()
    }

    /// What the disk may hold now.
    fn images(&self) -> impl Iterator<Item = Image> + '_ {
        let build = move |keep: &dyn Fn(usize, &Change) -> Vec<Change>| -> Image {
            self.files
                .iter()
                .map(|(name, file)| {
                    let mut bytes = file.durable.clone();
                    for (index, change) in file.pending.iter().enumerate() {
                        keep(index, change).iter().for_each(|change| apply_change(&mut bytes, change));
                    }
                    (name.clone(), bytes)
                })
                .collect()
        };
        let last = self.files.values().map(|file| file.pending.len()).max().unwrap_or(0).saturating_sub(1);
        let all = |_: usize, change: &Change| vec![change.clone()];
        let none = |_: usize, _: &Change| Vec::new();
        let even =
            |index: usize, change: &Change| if index.is_multiple_of(2) { vec![change.clone()] } else { Vec::new() };
        let odd = |index: usize, change: &Change| if index % 2 == 1 { vec![change.clone()] } else { Vec::new() };
        let only_last =
            move |index: usize, change: &Change| if index == last { vec![change.clone()] } else { Vec::new() };
        let torn = move |index: usize, change: &Change| match change {
            Change::Write(offset, data) if index == last => {
                vec![Change::Write(*offset, data[..data.len() / 2].to_vec())]
            }
            change => vec![change.clone()],
        };
        let mut images = vec![build(&all), build(&none)];
        if self.files.values().any(|file| !file.pending.is_empty()) {
            images.extend([build(&even), build(&odd), build(&only_last), build(&torn)]);
            for lot in 1..=LOTS {
                images.push(build(&|index, change| by_lot(lot + self.begun as u64 * LOTS, index, change)));
            }
        }
        images.into_iter()
    }
}

fn apply_change(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, data) => {
            let start = *offset as usize;
            if bytes.len() < start + data.len() {
                bytes.resize(start + data.len(), 0);
            }
            bytes[start..start + data.len()].copy_from_slice(data);
        }
        Change::Truncate(size) => bytes.resize(*size as usize, 0),
    }
}

/// Some sectors of a write.
fn by_lot(lot: u64, index: usize, change: &Change) -> Vec<Change> {
    let draw = |part: usize| {
        let mixed = (lot ^ ((index as u64) << 20) ^ part as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 63 == 1
    };
    match change {
        Change::Write(offset, data) => data
            .chunks(SECTOR)
            .enumerate()
            .filter(|(part, _)| draw(*part))
            .map(|(part, bytes)| Change::Write(offset + (part * SECTOR) as u64, bytes.to_vec()))
            .collect(),
        Change::Truncate(_) if draw(0) => vec![change.clone()],
        Change::Truncate(_) => Vec::new(),
    }
}

/// Opens an image and looks at every record.
fn judge(folder: &Path, image: &Image, disk: &Disk, states: &[Content]) -> Tally {
    let mut tally = Tally::default();
    match look(folder, image) {
        Ok(found) => {
            let promised = &states[disk.ended];
            if found != *promised && states.get(disk.begun) != Some(&found) {
                tally.lost = promised.iter().filter(|(place, record)| found.get(place) != Some(record)).count().max(1);
                tally.note(format_args!("after {} of {} operations: {} records", disk.ended, disk.begun, found.len()));
            }
        }
        Err(error) => {
            tally.lost = 1;
            tally.note(format_args!("after {} of {} operations: {error}", disk.ended, disk.begun));
        }
    }
    tally.case()
}

fn look(folder: &Path, image: &Image) -> Result<Content> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir(folder)?;
    for (name, bytes) in image {
        fs::write(folder.join(name), bytes)?;
    }
    let store = open(&format!("sqlite:{}", folder.join(DATABASE).display()))?;
    content(&*store).map_err(Error::doing("a record"))
}
