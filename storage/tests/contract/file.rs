//! What a store in a file promises beyond the contract.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use postern_storage::{Lookup, Once, OpenError, Storage, StorageConfig, StorageError};
use prometheus::Registry;
use redb::{ReadableDatabase as _, ReadableTable as _};

use super::support::{ISSUER, World, account, at, id, keyring, session, tokens};

fn open(file: &Path) -> Result<Storage, OpenError> {
    Storage::open(StorageConfig::File { path: file.to_owned() }, keyring(), &Registry::new())
}

#[tokio::test]
async fn sessions_survive_a_restart() {
    let world = World::file();
    let session = session(1, "alice");
    world.storage.sessions().create(&session, &tokens("a")).await.unwrap();
    world.storage.sessions().spend(Once::Ticket, b"t", at(0), at(9)).await.unwrap();
    world.storage.close().await;
    let again = open(&world.file).unwrap();
    let Lookup::Found(found) = again.sessions().load(&session.handle, at(1)).await.unwrap() else { panic!("lost") };
    assert_eq!(*found, session);
    assert!(!again.sessions().spend(Once::Ticket, b"t", at(0), at(9)).await.unwrap());
}

#[tokio::test]
async fn refreshes_that_are_due_survive_a_restart() {
    let world = World::file();
    let session = session(1, "alice");
    world.storage.sessions().create(&session, &tokens("a")).await.unwrap();
    world.storage.close().await;
    let again = open(&world.file).unwrap();
    let due = again.sessions().due(at(200), 10).await.unwrap();
    assert_eq!(due.iter().map(|due| due.handle).collect::<Vec<_>>(), [session.handle]);
}

#[tokio::test]
async fn s_081_s_082_the_file_tells_no_id_no_token_and_no_name() {
    let world = World::file();
    let sessions = world.storage.sessions();
    let mut session = session(1, "alice-the-user");
    sessions.create(&session, &tokens("marked")).await.unwrap();
    session.user.email = Some("second@mail.example".to_owned());
    sessions.commit(&session.handle, 1, &session, &tokens("renewed")).await.unwrap();
    sessions.spend(Once::SignIn, b"spent-state-value", at(0), at(9)).await.unwrap();
    world.storage.close().await;
    let bytes = fs::read(&world.file).unwrap();
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(holds(session.handle.as_bytes()), "the search finds what is there");
    assert!(!holds(id(1).as_bytes()), "the id");
    let secrets = [
        "marked",
        "renewed",
        "access-",
        "refresh-",
        "id-token-",
        "alice",
        "mail.example",
        "North",
        "idp.example",
        "engineering",
        "groups",
        "spent-state-value",
    ];
    for secret in secrets {
        assert!(!holds(secret.as_bytes()), "{secret}");
    }
}

#[tokio::test]
async fn s_082_a_record_that_was_moved_to_another_key_is_no_session() {
    let world = World::file();
    for (number, user) in [(1, "alice"), (2, "bob")] {
        world.storage.sessions().create(&session(number, user), &tokens(user)).await.unwrap();
    }
    let (alice, bob) = (session(1, "alice").handle, session(2, "bob").handle);
    world.storage.close().await;
    change_record(&world.file, "sessions", alice.as_bytes(), bob.as_bytes(), &[]);
    let storage = open(&world.file).unwrap();
    assert!(matches!(storage.sessions().load(&alice, at(1)).await.unwrap(), Lookup::Found(_)));
    assert!(matches!(storage.sessions().load(&bob, at(1)).await.unwrap(), Lookup::Unknown));
    assert!(storage.sessions().tokens(&bob).await.unwrap().is_none());
    storage.close().await;
    change_record(&world.file, "tokens", bob.as_bytes(), alice.as_bytes(), &[]);
    let storage = open(&world.file).unwrap();
    assert!(storage.sessions().tokens(&alice).await.unwrap().is_none(), "tokens of another session");
}

const fn table(name: &str) -> redb::TableDefinition<'_, &'static [u8], &'static [u8]> {
    redb::TableDefinition::new(name)
}

/// Copies a record to another key, or to its own, with some bytes more.
fn change_record(file: &Path, name: &str, from: &[u8], to: &[u8], more: &[u8]) {
    let database = redb::Database::open(file).unwrap();
    let writing = database.begin_write().unwrap();
    {
        let mut records = writing.open_table(table(name)).unwrap();
        let record = [records.get(from).unwrap().unwrap().value(), more].concat();
        records.insert(to, record.as_slice()).unwrap();
    }
    writing.commit().unwrap();
}

#[tokio::test]
async fn r_023_a_record_for_newer_readers_only_is_unavailable_and_not_unknown() {
    let world = World::file();
    let handle = session(1, "alice").handle;
    world.storage.sessions().create(&session(1, "alice"), &tokens("a")).await.unwrap();
    world.storage.close().await;
    // Field 2, `min_reader`, once more: of a repeated field the last one counts.
    change_record(&world.file, "sessions", handle.as_bytes(), handle.as_bytes(), &[0x10, 9]);
    let storage = open(&world.file).unwrap();
    let loaded = storage.sessions().load(&handle, at(1)).await;
    assert!(matches!(loaded, Err(StorageError::Unavailable { .. })), "{loaded:?}");
    assert!(storage.sessions().tokens(&handle).await.is_err());
    storage.sessions().revoke(&handle).await.unwrap();
}

#[tokio::test]
async fn the_file_and_its_folder_are_for_this_user_alone() {
    let world = World::file();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.file), 0o600);
    assert_eq!(mode(world.file.parent().unwrap()), 0o700);
    world.storage.close().await;
    fs::set_permissions(&world.file, fs::Permissions::from_mode(0o644)).unwrap();
    let storage = open(&world.file).unwrap();
    assert_eq!(mode(&world.file), 0o600, "mended");
    storage.close().await;
}

#[tokio::test]
async fn a_file_has_one_owner_and_is_free_after_it() {
    let world = World::file();
    let Err(OpenError::InUse { path }) = open(&world.file) else { panic!("opened twice") };
    assert_eq!(path, world.file);
    world.storage.close().await;
    open(&world.file).unwrap().close().await;
}

#[tokio::test]
async fn r_023_a_file_of_a_newer_format_is_refused_and_left_alone() {
    let world = World::file();
    world.storage.close().await;
    let note = |format: u32, min_reader: u32| {
        let database = redb::Database::open(&world.file).unwrap();
        let writing = database.begin_write().unwrap();
        writing.open_table(META).unwrap().insert("format", format).unwrap();
        writing.open_table(META).unwrap().insert("min_reader", min_reader).unwrap();
        writing.commit().unwrap();
    };
    note(9, 8);
    let refused = open(&world.file).unwrap_err();
    assert!(matches!(refused, OpenError::NewerFormat { found: 8, known: 2, .. }), "{refused:?}");
    assert!(refused.to_string().contains("(format 8, this one reads up to 2)"), "{refused}");
    assert_eq!(format_of(&world.file), 9);
    note(9, 1);
    open(&world.file).unwrap().close().await;
    assert_eq!(format_of(&world.file), 9, "a format that may be read is not written down again");
}

/// A file of each format that was ever written, by [`write_the_fixture`].
const FORMATS: [(u32, &[u8]); 2] =
    [(1, include_bytes!("format_1.redb.blocks")), (2, include_bytes!("format_2.redb.blocks"))];

#[tokio::test]
async fn r_023_a_file_of_every_format_is_opened_and_loses_nothing() {
    for (format, blocks) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("store");
        fs::write(&file, unpacked(blocks)).unwrap();
        assert_eq!(format_of(&file), format);
        let storage = open(&file).unwrap();
        let (sessions, alice) = (storage.sessions(), session(1, "alice"));
        let Lookup::Found(found) = sessions.load(&alice.handle, at(1)).await.unwrap() else { panic!("lost: {format}") };
        assert_eq!(*found, alice);
        let tokens = sessions.tokens(&alice.handle).await.unwrap().unwrap();
        assert_eq!(tokens.refresh.unwrap().expose(), "refresh-alice");
        for (number, user) in [(2, "bob"), (3, "carol")] {
            let found = sessions.load(&session(number, user).handle, at(1)).await.unwrap();
            assert!(matches!(found, Lookup::Revoked), "{format}, {user}: {found:?}");
        }
        assert!(!sessions.spend(Once::Ticket, b"spent", at(0), at(9)).await.unwrap(), "{format}");
        let due = sessions.due(at(200), 10).await.unwrap();
        assert_eq!(due.iter().map(|due| due.handle).collect::<Vec<_>>(), [alice.handle], "{format}");
        assert_eq!(sessions.list(ISSUER, "alice", at(1)).await.unwrap().len(), 1);
        storage.close().await;
        assert_eq!(format_of(&file), FORMATS.last().unwrap().0, "the present one");
    }
}

fn format_of(file: &Path) -> u32 {
    let database = redb::Database::open(file).unwrap();
    let meta = database.begin_read().unwrap().open_table(META).unwrap();
    meta.get("format").unwrap().unwrap().value()
}

const META: redb::TableDefinition<'_, &str, u32> = redb::TableDefinition::new("meta");

#[tokio::test]
#[ignore = "writes the fixture of a new format"]
async fn write_the_fixture() {
    let world = World::file();
    let sessions = world.storage.sessions();
    for (number, user) in [(1, "alice"), (2, "bob"), (3, "carol")] {
        sessions.create(&session(number, user), &tokens(user)).await.unwrap();
    }
    sessions.revoke(&session(2, "bob").handle).await.unwrap();
    sessions.revoke_user(ISSUER, "carol", at(5)).await.unwrap();
    sessions.spend(Once::Ticket, b"spent", at(0), at(9)).await.unwrap();
    world.storage.close().await;
    fs::write("tests/contract/format_N.redb.blocks", packed(&fs::read(&world.file).unwrap())).unwrap();
}

/// Most of a small file is zeros: its length, and each block that is something else, after its number.
fn packed(file: &[u8]) -> Vec<u8> {
    let mut out = u64::try_from(file.len()).unwrap().to_be_bytes().to_vec();
    for (number, block) in (0_u32..).zip(file.chunks(BLOCK)).filter(|(_, block)| block.iter().any(|byte| *byte != 0)) {
        out.extend(number.to_be_bytes());
        out.extend(block);
    }
    out
}

fn unpacked(blocks: &[u8]) -> Vec<u8> {
    let (length, blocks) = blocks.split_first_chunk().unwrap();
    let mut file = vec![0; usize::try_from(u64::from_be_bytes(*length)).unwrap()];
    for block in blocks.chunks(4 + BLOCK) {
        let (number, block) = block.split_first_chunk().unwrap();
        let at = usize::try_from(u32::from_be_bytes(*number)).unwrap() * BLOCK;
        file.get_mut(at..at + block.len()).unwrap().copy_from_slice(block);
    }
    file
}

const BLOCK: usize = 512;

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    let words = "not a database, but somebody's notes ".repeat(1000);
    fs::write(&file, &words).unwrap();
    let error = open(&file).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), words);
    assert!(matches!(open(Path::new("/proc/nowhere/store")), Err(OpenError::Io { .. })));
}

#[tokio::test]
async fn what_has_ended_is_swept_and_what_lasts_is_kept() {
    let world = World::file();
    let sessions = world.storage.sessions();
    let long_ago = |number| postern_identity::Session {
        issued_at: postern_identity::Timestamp::from_secs(1),
        expires_at: postern_identity::Timestamp::from_secs(2),
        ..session(number, "alice")
    };
    for number in 0..20 {
        sessions.create(&long_ago(number), &tokens("a")).await.unwrap();
    }
    sessions.create(&session(99, "bob"), &tokens("b")).await.unwrap();
    let (past, future) = (postern_identity::Timestamp::from_secs(2), at(9));
    sessions.spend(Once::Ticket, b"old", past, past).await.unwrap();
    sessions.spend(Once::Ticket, b"new", past, future).await.unwrap();
    world.storage.close().await;
    // The sweep is the first thing that an open store does; closing waits for it.
    open(&world.file).unwrap().close().await;
    let database = redb::Database::open(&world.file).unwrap();
    let reading = database.begin_read().unwrap();
    let count = |name| reading.open_table(table(name)).unwrap().iter().unwrap().count();
    assert_eq!((count("sessions"), count("tokens"), count("owned"), count("spent")), (1, 1, 1, 1));
    assert_eq!(count("endings"), 2);
}

#[tokio::test]
async fn s_095_an_end_of_everything_is_remembered_as_long_as_anything_lasts() {
    let world = World::file();
    let sessions = world.storage.sessions();
    let long_ago = |secs| postern_identity::Timestamp::from_secs(secs);
    let account = postern_identity::Session { issued_at: long_ago(1), ..account(1, "ci") };
    sessions.create(&account, &tokens("a")).await.unwrap();
    sessions.revoke_everyone(long_ago(2)).await.unwrap();
    world.storage.close().await;
    // The sweep is the first thing that an open store does; closing waits for it.
    open(&world.file).unwrap().close().await;
    let again = open(&world.file).unwrap();
    let found = again.sessions().load(&account.handle, at(1)).await.unwrap();
    assert!(matches!(found, Lookup::Revoked), "{found:?}");
}

#[tokio::test]
async fn what_has_ended_is_in_no_list_of_its_owner() {
    let world = World::file();
    let sessions = world.storage.sessions();
    for number in [1, 2] {
        sessions.create(&session(number, "alice"), &tokens("a")).await.unwrap();
    }
    sessions.revoke(&session(1, "alice").handle).await.unwrap();
    world.storage.close().await;
    let database = redb::Database::open(&world.file).unwrap();
    let owned = database.begin_read().unwrap().open_table(table("owned")).unwrap();
    assert_eq!(owned.iter().unwrap().count(), 1);
}

const ROUNDS: usize = 15;

#[tokio::test]
async fn r_018_what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sessions.redb");
    let mut next = 0;
    let mut known = Known::default();
    for round in 0..ROUNDS {
        let mut victim = Victim::start(&file, next);
        for _ in 0..(7 + round * 5) {
            known.note(&victim.line());
        }
        // It is in the middle of something now: it never pauses.
        for line in victim.kill() {
            known.note(&line);
        }
        next += 10_000;
        let storage = open(&file).unwrap();
        known.check(&storage, round).await;
        storage.close().await;
    }
    assert!(known.created.len() > ROUNDS && known.revoked.len() > ROUNDS && known.spent.len() > ROUNDS);
}

/// What victims said that they had done.
#[derive(Debug, Default)]
struct Known {
    created: HashSet<u64>,
    revoked: HashSet<u64>,
    spent: HashSet<u64>,
}

impl Known {
    fn note(&mut self, line: &str) {
        let Some((what, number)) = line.split_once(' ') else { return };
        let Ok(number) = number.parse() else { return };
        match what {
            "created" => self.created.insert(number),
            "revoked" => self.revoked.insert(number),
            "spent" => self.spent.insert(number),
            _ => false,
        };
    }

    async fn check(&self, storage: &Storage, round: usize) {
        let sessions = storage.sessions();
        for number in &self.created {
            let handle = session(*number, "victim").handle;
            let found = answered(async || sessions.load(&handle, at(1)).await).await;
            match (self.revoked.contains(number), found) {
                (true, Lookup::Revoked) | (false, Lookup::Found(_)) => {}
                // A revocation that was under way may have happened.
                (false, Lookup::Revoked) if number.is_multiple_of(3) => {}
                (revoked, found) => panic!("round {round}, session {number}, revoked {revoked}: {found:?}"),
            }
        }
        for number in &self.spent {
            let again =
                answered(async || sessions.spend(Once::Ticket, &number.to_be_bytes(), at(0), at(9)).await).await;
            assert!(!again, "round {round}: value {number} can be spent twice");
        }
        let listed = answered(async || sessions.list(ISSUER, "victim", at(1)).await).await;
        assert!(listed.len() >= self.created.len().saturating_sub(self.revoked.len() + ROUNDS).min(900), "the index");
    }
}

/// The answer of a store that is there: on a busy machine one that took too long is asked again.
async fn answered<T>(ask: impl AsyncFn() -> Result<T, StorageError>) -> T {
    for _ in 0..20 {
        match ask().await {
            Err(StorageError::Unavailable { .. }) => {}
            answer => return answer.unwrap(),
        }
    }
    panic!("it never answered in time")
}

/// This test binary, started once more to be killed.
#[derive(Debug)]
struct Victim {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Victim {
    fn start(file: &Path, first: u64) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "file::a_victim_of_kill_9", "--ignored", "--nocapture", "--test-threads=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        writeln!(process.stdin.as_mut().unwrap(), "{first} {}", file.display()).unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the victim ended by itself");
        line.trim().to_owned()
    }

    /// Kills it, and gives what it had said before.
    fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        let complete = rest.rfind('\n').map_or("", |end| rest.get(..end).unwrap());
        complete.lines().map(str::to_owned).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is started by the test that kills it"]
async fn a_victim_of_kill_9() {
    let mut order = String::new();
    std::io::stdin().read_line(&mut order).unwrap();
    let (first, file) = order.trim().split_once(' ').unwrap();
    let (first, file): (u64, _) = (first.parse().unwrap(), PathBuf::from(file));
    let storage = open(&file).unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|lane| {
            let sessions = storage.sessions();
            tokio::spawn(async move {
                for number in (first..).skip(lane).step_by(4) {
                    let session = session(number, "victim");
                    sessions.create(&session, &tokens("v")).await.unwrap();
                    println!("created {number}");
                    sessions.spend(Once::Ticket, &number.to_be_bytes(), at(0), at(9)).await.unwrap();
                    println!("spent {number}");
                    if number.is_multiple_of(3) {
                        sessions.revoke(&session.handle).await.unwrap();
                        println!("revoked {number}");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
