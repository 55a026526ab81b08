//! The format of the file: which one it says to have, and how an older one becomes the present one.
//!
//! It is that of the file alone: its tables, and what their keys are made of. What is in a record says its own format
//! ([`record`](crate::record)).

use std::path::Path;

use redb::{Database, ReadableDatabase as _, TableDefinition, TableError, WriteTransaction};
use tracing::info;

use super::{definition, unusable};
use crate::OpenError;
use crate::backend::rows::Table;

/// Makes the next format of one.
type Step = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// From each format to the next, the first from a file that is empty: the present format is as many as there are. A step that
/// was released never changes. Each is small enough for one transaction, and all that a file lacks are one.
const STEPS: &[Step] = &[
    // 1: sessions and what belongs to them.
    |file| {
        const FIRST: [Table; 6] =
            [Table::Sessions, Table::Tokens, Table::Owned, Table::Epochs, Table::Spent, Table::Endings];
        FIRST.into_iter().try_for_each(|table| Ok(file.open_table(definition(table)).map(drop)?))
    },
    // 2: whose refresh is due. Before, the first write of one made the table.
    |file| Ok(file.open_table(definition(Table::Due)).map(drop)?),
];

/// The oldest format whose readers may go on to read and write this file: a step that they would undo or misread raises it.
const MIN_READER: u32 = 1;

/// What every version writes: the format, and the oldest format whose readers may still read.
const META: TableDefinition<'static, &'static str, u32> = TableDefinition::new("meta");

/// Refuses a newer format; brings an older one up to date. Writes only then, so that a full disk can still be read.
pub(super) fn prepare(database: &Database, path: &Path) -> Result<(), OpenError> {
    let refused = |error| unusable(path, error);
    let Said { format, min_reader } = said(database).map_err(refused)?;
    let known = format_after(STEPS);
    if min_reader > known {
        return Err(OpenError::NewerFormat { path: path.to_owned(), found: min_reader, known });
    }
    if bring_up(database, format, STEPS).map_err(refused)? && format > 0 {
        info!(path = %path.display(), from = format, to = known, "the store has a new format now");
    }
    Ok(())
}

/// What the file says of itself; one that says nothing is empty, and of format 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    format: u32,
    min_reader: u32,
}

fn said(database: &Database) -> Result<Said, redb::Error> {
    let reading = database.begin_read()?;
    let meta = match reading.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Said::default()),
        meta => meta?,
    };
    let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|number| number.value()).unwrap_or_default());
    Ok(Said { format: number("format")?, min_reader: number("min_reader")? })
}

/// Goes the steps that a file of that format lacks, all or none of them: who is killed meanwhile finds the old format again.
/// Whether there were any.
fn bring_up(database: &Database, format: u32, steps: &[Step]) -> Result<bool, redb::Error> {
    let gone = usize::try_from(format).unwrap_or(usize::MAX);
    let Some(missing) = steps.get(gone..).filter(|missing| !missing.is_empty()) else { return Ok(false) };
    let file = database.begin_write()?;
    missing.iter().try_for_each(|step| step(&file))?;
    {
        let mut meta = file.open_table(META)?;
        meta.insert("format", format_after(steps))?;
        meta.insert("min_reader", MIN_READER)?;
    }
    file.commit()?;
    Ok(true)
}

fn format_after(steps: &[Step]) -> u32 {
    u32::try_from(steps.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use redb::{ReadableTable as _, ReadableTableMetadata as _};

    use super::super::tests::Disk;
    use super::*;

    const ROWS: u16 = 300;

    /// A step to come, that changes every row.
    const LATER: &[Step] = &[STEPS[0], STEPS[1], |file| {
        let mut sessions = file.open_table(definition(Table::Sessions))?;
        for number in 0..ROWS {
            sessions.insert(number.to_be_bytes().as_slice(), NEW)?;
        }
        Ok(())
    }];
    const OLD: &[u8] = &[1; 200];
    const NEW: &[u8] = &[2; 300];

    /// A file as a version left it that knew these steps, with some rows.
    fn file_of(folder: &Path, steps: &[Step]) -> PathBuf {
        let path = folder.join("old");
        let database = Database::create(&path).unwrap();
        bring_up(&database, 0, steps).unwrap();
        let file = database.begin_write().unwrap();
        for number in 0..ROWS {
            let mut sessions = file.open_table(definition(Table::Sessions)).unwrap();
            sessions.insert(number.to_be_bytes().as_slice(), OLD).unwrap();
        }
        file.commit().unwrap();
        path
    }

    /// How many rows are as they were, and how many are as the step to come makes them.
    fn rows(database: &Database) -> (usize, usize) {
        let reading = database.begin_read().unwrap();
        let sessions = reading.open_table(definition(Table::Sessions)).unwrap();
        let count =
            |value: &[u8]| sessions.iter().unwrap().filter(|row| row.as_ref().unwrap().1.value() == value).count();
        (count(OLD), count(NEW))
    }

    #[test]
    fn r_018_a_migration_that_is_cut_short_anywhere_leaves_the_old_format_or_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let old = file_of(folder.path(), &STEPS[..1]);
        let (path, all) = (folder.path().join("cut short"), usize::from(ROWS));
        let (mut cut_short, mut before, mut after) = (0, 0, 0);
        loop {
            fs::copy(&old, &path).unwrap();
            let left = Arc::new(AtomicUsize::new(cut_short));
            let done = {
                let opened = Database::builder().create_with_backend(Disk::of(&path, &left));
                opened.is_ok_and(|database| bring_up(&database, 1, LATER).is_ok())
            };
            let database = Database::open(&path).unwrap();
            match (said(&database).unwrap().format, rows(&database)) {
                (1, (old, 0)) if old == all && !done => before += 1,
                (3, (0, new)) if new == all => after += 1,
                neither => panic!("after {cut_short} writes: {neither:?}, done: {done}"),
            }
            assert!(bring_up(&database, said(&database).unwrap().format, LATER).is_ok());
            assert_eq!((said(&database).unwrap().format, rows(&database)), (3, (0, all)));
            if left.load(Ordering::SeqCst) > 0 {
                break;
            }
            cut_short += 1;
        }
        assert!(before > 5 && after > 0, "{before}, {after}");
    }

    #[test]
    fn a_file_of_the_first_format_gets_the_table_that_it_lacks_and_keeps_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = file_of(folder.path(), &STEPS[..1]);
        let database = Database::open(&path).unwrap();
        let due = || database.begin_read().unwrap().open_table(definition(Table::Due)).map(|due| due.len().unwrap());
        assert!(due().is_err());
        prepare(&database, &path).unwrap();
        assert_eq!((due().unwrap(), said(&database).unwrap()), (0, Said { format: 2, min_reader: 1 }));
        assert_eq!(rows(&database), (usize::from(ROWS), 0));
        let reading = database.begin_read().unwrap();
        for table in Table::ALL {
            assert!(reading.open_table(definition(table)).is_ok(), "a step makes {table:?}");
        }
    }
}
