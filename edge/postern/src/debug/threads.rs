//! What the kernel knows of this process: its threads with their processor time, and its memory (proc(5)).

use std::{fs, io};

use serde_json::{Value, json};

/// What the kernel counts processor time in, whatever its own clock: a hundredth of a second.
pub(super) const TICK_NANOS: i64 = 10_000_000;

/// One thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Thread {
    pub(super) id: u64,
    /// The first fifteen bytes of its name.
    pub(super) name: String,
    /// Whether it runs, sleeps, or waits for a disk: `R`, `S`, `D`.
    state: String,
    /// Ticks that it spent in its own code.
    pub(super) user: u64,
    /// Ticks that the kernel spent for it.
    pub(super) kernel: u64,
}

impl Thread {
    /// What the kernel says of one.
    fn parse(stat: &str) -> Option<Self> {
        // A name may hold anything, parentheses and spaces too.
        let (id, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?.to_owned();
        let mut ticks = fields.skip(10).map(|field| field.parse().ok());
        Some(Self { id: id.parse().ok()?, name: name.to_owned(), state, user: ticks.next()??, kernel: ticks.next()?? })
    }

    /// For programs.
    pub(super) fn as_json(&self) -> Value {
        let Self { id, name, state, user, kernel } = self;
        json!({ "id": id, "name": name, "state": state, "user_ms": user * 10, "kernel_ms": kernel * 10 })
    }
}

/// All threads. One that ends meanwhile is left out.
pub(super) fn all() -> io::Result<Vec<Thread>> {
    let folders = fs::read_dir("/proc/self/task")?.filter_map(Result::ok);
    let stats = folders.filter_map(|folder| fs::read_to_string(folder.path().join("stat")).ok());
    Ok(stats.filter_map(|stat| Thread::parse(&stat)).collect())
}

/// What of `/proc/self/status` is about memory.
const MEMORY: [(&str, &str); 8] = [
    ("VmRSS", "resident"),
    ("VmHWM", "resident_most"),
    ("RssAnon", "resident_own"),
    ("RssFile", "resident_of_files"),
    ("VmSwap", "swapped"),
    ("VmData", "data"),
    ("VmSize", "mapped"),
    ("VmPeak", "mapped_most"),
];

/// Memory in bytes, and how many descriptors are open.
pub(super) fn memory() -> io::Result<Value> {
    let status = fs::read_to_string("/proc/self/status")?;
    let descriptors = fs::read_dir("/proc/self/fd")?.count();
    let mut told: serde_json::Map<_, _> = bytes(&status).map(|(name, bytes)| (name.to_owned(), bytes.into())).collect();
    told.insert("descriptors".to_owned(), descriptors.into());
    Ok(Value::Object(told))
}

fn bytes(status: &str) -> impl Iterator<Item = (&'static str, u64)> {
    MEMORY.iter().filter_map(|(key, name)| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some((*name, kilobytes * 1024))
    })
}

#[cfg(test)]
pub(super) mod testing {
    use super::Thread;

    pub(in crate::debug) fn thread(id: u64, name: &str, user: u64, kernel: u64) -> Thread {
        Thread { id, name: name.to_owned(), state: "S".to_owned(), user, kernel }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_known_by_whatever_name_it_has() {
        let stat = "42 (edge (0) x) R 1 42 42 0 -1 4194560 10 0 0 0 317 25 0 0 20 0 9 0 1000 1 1 1";
        let thread = Thread::parse(stat).unwrap();
        assert_eq!((thread.id, &*thread.name, &*thread.state), (42, "edge (0) x", "R"));
        assert_eq!((thread.user, thread.kernel), (317, 25));
        assert_eq!(Thread::parse("42 (edge-0) R 1 42"), None);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let status = "Name:\tpostern\nVmPeak:\t  200 kB\nVmRSS:\t  100 kB\nVmLck:\tmuch\n";
        assert_eq!(bytes(status).collect::<Vec<_>>(), [("resident", 102_400), ("mapped_most", 204_800)]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_told_of() {
        let named = std::thread::Builder::new().name("told-of".to_owned());
        let thread = named.spawn(|| all().unwrap().iter().any(|thread| thread.name == "told-of")).unwrap();
        assert!(thread.join().unwrap());
        assert!(memory().unwrap()["resident"].as_u64().unwrap() > 0);
    }
}
