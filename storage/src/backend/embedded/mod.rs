//! The store in one file: redb, written by one thread that commits for many at once.
//!
//! The file belongs to one process. What was acknowledged is on disk: a kill at any moment loses none of it.

mod format;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use redb::backends::FileBackend;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{error, info};

use super::rows::{self, Change, Read, Table};
use super::{Done, Write};
use crate::{OpenError, StorageError};

/// The open file.
#[derive(Debug)]
pub(crate) struct Embedded {
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    database: Arc<ArcSwapOption<Database>>,
    readers: Arc<Semaphore>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Debug)]
struct Job {
    write: Write,
    answer: oneshot::Sender<Result<Done, StorageError>>,
}

type Opener = Box<dyn Fn() -> Result<Database, OpenError> + Send>;

impl Embedded {
    /// Opens the file, and makes it and its folder if they are missing, for this user alone.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let path = path.to_owned();
        Self::start(Box::new(move || open(&path)))
    }

    fn start(opener: Opener) -> Result<Self, OpenError> {
        let database = Arc::new(ArcSwapOption::from_pointee(opener()?));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let shared = Arc::clone(&database);
        let writer = std::thread::Builder::new()
            .name("postern-store".to_owned())
            .spawn(move || Writer { database: shared, opener, reopened: Instant::now() }.run(jobs))
            .map_err(|source| OpenError::Io { path: PathBuf::new(), source })?;
        let readers = Arc::new(Semaphore::new(READERS));
        Ok(Self { queue: Mutex::new(Some(queue)), database, readers, writer: Mutex::new(Some(writer)) })
    }

    /// Reads at one moment, on a thread where the disk may be slow.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Snapshot) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let seat = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| closed())?;
        let database = self.database.load_full().ok_or_else(|| self.ask_to_reopen())?;
        let reading = tokio::task::spawn_blocking(move || {
            let snapshot = Snapshot(database.begin_read().map_err(refused)?);
            let found = read(&snapshot);
            drop((snapshot, database, seat));
            found
        });
        reading.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Applies a change; it is on disk when this returns.
    pub(super) async fn write(&self, write: Write) -> Result<Done, StorageError> {
        let queue = lock(&self.queue).clone().ok_or_else(closed)?;
        let (answer, answered) = oneshot::channel();
        queue.send(Job { write, answer }).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    /// The writer opens the file; any job makes it try.
    fn ask_to_reopen(&self) -> StorageError {
        let nothing = Write::Touch { touched: Vec::new(), over: Vec::new() };
        if let Some(queue) = lock(&self.queue).as_ref() {
            // A full queue is full of jobs that do the same.
            drop(queue.try_send(Job { write: nothing, answer: oneshot::channel().0 }));
        }
        reopening()
    }

    /// Finishes the writes that wait and lets go of the file.
    pub(super) async fn close(&self) {
        drop(lock(&self.queue).take());
        let writer = lock(&self.writer).take();
        let ended = tokio::task::spawn_blocking(move || writer.map(std::thread::JoinHandle::join)).await;
        if !matches!(ended, Ok(None | Some(Ok(())))) {
            error!("the thread that writes the store ended badly");
        }
        self.readers.close();
        self.database.store(None);
    }
}

/// The one who writes.
struct Writer {
    database: Arc<ArcSwapOption<Database>>,
    opener: Opener,
    reopened: Instant,
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(first) = jobs.blocking_recv() {
            batch.push(first);
            while batch.len() < BATCH {
                let Ok(next) = jobs.try_recv() else { break };
                batch.push(next);
            }
            self.commit(&mut batch);
        }
    }

    /// One transaction for all: each is answered when all of them are on disk, or none is.
    fn commit(&mut self, batch: &mut Vec<Job>) {
        let outcome = self.open().and_then(|database| write_all(&database, batch));
        match outcome {
            Ok(done) => answer(batch.drain(..).zip(done)),
            Err(fault) => {
                if self.database.swap(None).is_some() {
                    // After a failed write the database refuses everything until it is opened again.
                    error!(error = %fault, "the store could not be written");
                }
                answer(batch.drain(..).map(|job| (job, Err(fault.clone()))));
            }
        }
    }

    fn open(&mut self) -> Result<Arc<Database>, StorageError> {
        if let Some(database) = self.database.load_full() {
            return Ok(database);
        }
        if self.reopened.elapsed() < REOPEN_EVERY {
            return Err(reopening());
        }
        self.reopened = Instant::now();
        let database = Arc::new((self.opener)().map_err(|error| StorageError::unavailable(error.to_string()))?);
        self.database.store(Some(Arc::clone(&database)));
        info!("the store was opened again");
        Ok(database)
    }
}

fn answer(answers: impl Iterator<Item = (Job, Result<Done, StorageError>)>) {
    for (job, answer) in answers {
        // Whoever asked may have stopped waiting.
        drop(job.answer.send(answer));
    }
}

/// What each job came to; an error is of the disk, and then none of them happened.
fn write_all(database: &Database, batch: &[Job]) -> Result<Vec<Result<Done, StorageError>>, StorageError> {
    let mut transaction = database.begin_write().map_err(refused)?;
    transaction.set_durability(Durability::Immediate).map_err(refused)?;
    let mut changes = Changes(transaction);
    let done = batch.iter().map(|job| rows::apply(&mut changes, &job.write).map(Ok)).collect::<Result<_, _>>()?;
    changes.0.commit().map_err(refused)?;
    Ok(done)
}

/// The tables at one moment.
#[derive(Debug)]
pub(super) struct Snapshot(ReadTransaction);

impl Read for Snapshot {
    fn find(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let table = self.0.open_table(definition(table)).map_err(refused)?;
        Ok(table.get(key).map_err(refused)?.map(|value| value.value().to_vec()))
    }

    fn keys(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StorageError> {
        let table = self.0.open_table(definition(table)).map_err(refused)?;
        first_keys(table.range(from..to).map_err(refused)?, limit)
    }
}

/// The tables inside of a transaction.
struct Changes(WriteTransaction);

impl Read for Changes {
    fn find(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let table = self.0.open_table(definition(table)).map_err(refused)?;
        let found = table.get(key).map_err(refused)?.map(|value| value.value().to_vec());
        Ok(found)
    }

    fn keys(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StorageError> {
        let table = self.0.open_table(definition(table)).map_err(refused)?;
        let range = table.range(from..to).map_err(refused)?;
        first_keys(range, limit)
    }
}

impl Change for Changes {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let mut table = self.0.open_table(definition(table)).map_err(refused)?;
        table.insert(key, value).map(drop).map_err(refused)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StorageError> {
        let mut table = self.0.open_table(definition(table)).map_err(refused)?;
        table.remove(key).map(drop).map_err(refused)
    }

    fn room(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

fn first_keys(range: redb::Range<'_, &[u8], &[u8]>, limit: usize) -> Result<Vec<Vec<u8>>, StorageError> {
    range.take(limit).map(|entry| entry.map(|(key, _)| key.value().to_vec()).map_err(refused)).collect()
}

const fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(match table {
        Table::Sessions => "sessions",
        Table::Tokens => "tokens",
        Table::Owned => "owned",
        Table::Epochs => "epochs",
        Table::Spent => "spent",
        Table::Endings => "endings",
        Table::Due => "due",
    })
}

fn open(path: &Path) -> Result<Database, OpenError> {
    let file = private_file(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let opened = FileBackend::new(file)
        .and_then(|backend| Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend));
    let database = opened.map_err(|error| unusable(path, error))?;
    format::prepare(&database, path)?;
    Ok(database)
}

/// The file, readable and writable by this user alone, in a folder that outlives a power cut.
fn private_file(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// Why a file cannot be opened.
fn unusable(path: &Path, error: impl Into<redb::Error>) -> OpenError {
    let (path, error) = (path.to_owned(), error.into());
    if let redb::Error::Io(source) = error {
        return OpenError::Io { path, source };
    }
    if matches!(error, redb::Error::DatabaseAlreadyOpen) {
        return OpenError::InUse { path };
    }
    OpenError::Damaged { path, reason: error.to_string() }
}

fn refused(error: impl Into<redb::Error>) -> StorageError {
    StorageError::unavailable(format!("the file refuses: {}", error.into()))
}

fn closed() -> StorageError {
    StorageError::unavailable("it is closed")
}

fn reopening() -> StorageError {
    StorageError::unavailable("its file failed and is being opened again")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes that wait; beyond them callers wait for a place, within their deadline.
const QUEUE: usize = 4_096;
/// Writes of one commit: at 10 µs each, a bound to what a sign-in waits for others.
const BATCH: usize = 512;
/// Reads at one time: a disk that hangs holds this many threads and no more.
const READERS: usize = 64;
/// redb's own cache of pages; its default is a gigabyte.
const CACHE_BYTES: usize = 64 << 20;
const REOPEN_EVERY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A disk that can be filled, or whose machine stops: it takes as many writes as are left.
    #[derive(Debug)]
    pub(super) struct Disk {
        file: FileBackend,
        left: Arc<AtomicUsize>,
    }

    impl Disk {
        pub(super) fn of(path: &Path, left: &Arc<AtomicUsize>) -> Self {
            Self { file: FileBackend::new(private_file(path).unwrap()).unwrap(), left: Arc::clone(left) }
        }

        fn room(&self) -> Result<(), io::Error> {
            let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            taken.map(drop).map_err(|_| io::ErrorKind::StorageFull.into())
        }
    }

    impl redb::StorageBackend for Disk {
        fn len(&self) -> Result<u64, io::Error> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> Result<(), io::Error> {
            self.room().and_then(|()| self.file.set_len(len))
        }

        fn sync_data(&self) -> Result<(), io::Error> {
            self.room().and_then(|()| self.file.sync_data())
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
            self.room().and_then(|()| self.file.write(offset, data))
        }
    }

    fn spend(number: u8) -> Write {
        Write::Spend { key: [number; 32], until: i64::MAX }
    }

    #[tokio::test]
    async fn r_006_a_full_disk_is_unavailable_and_comes_back_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (path, left) = (folder.path().join("store"), Arc::new(AtomicUsize::new(usize::MAX)));
        let disk = Arc::clone(&left);
        let store = Embedded::start(Box::new(move || {
            let opened = Database::builder().create_with_backend(Disk::of(&path, &disk));
            let database = opened.map_err(|error| unusable(&path, error))?;
            format::prepare(&database, &path)?;
            Ok(database)
        }))
        .unwrap();
        assert_eq!(store.write(spend(1)).await.unwrap(), Done::Applied);

        left.store(0, Ordering::SeqCst);
        for _ in 0..3 {
            let Err(StorageError::Unavailable { .. }) = store.write(spend(2)).await else { panic!("written nowhere") };
        }

        left.store(usize::MAX, Ordering::SeqCst);
        let deadline = Instant::now() + Duration::from_secs(10);
        // Readers alone must be enough to bring it back.
        while store.read(|rows| rows.find(Table::Spent, &[1; 32])).await.ok().flatten().is_none() {
            assert!(Instant::now() < deadline, "it did not come back");
            tokio::task::yield_now().await;
        }
        assert_eq!(store.write(spend(1)).await.unwrap(), Done::Refused, "what was acknowledged is lost");
        assert_eq!(store.write(spend(2)).await.unwrap(), Done::Applied);
        store.close().await;
        assert!(store.write(spend(3)).await.is_err());
    }
}
