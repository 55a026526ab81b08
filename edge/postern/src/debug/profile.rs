//! The processor time of each thread over a span, in the form that `go tool pprof` reads. The kernel has counted it: no signal
//! interrupts a thread, and no stack is walked (decision 0023).

use std::collections::HashMap;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use tokio::time::{Instant, sleep_until};

use super::threads::{self, TICK_NANOS, Thread};

/// How long a profile takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(Duration);

impl Span {
    /// `seconds` as it is asked for.
    pub(super) fn of(asked: Option<&str>) -> Result<Self, String> {
        let Some(text) = asked else { return Ok(Self(DEFAULT)) };
        let seconds = text.parse().ok().filter(|seconds| (1..=MOST.as_secs()).contains(seconds));
        let hint = || format!("`seconds` is a number from 1 to {}: write `?seconds=30`\n", MOST.as_secs());
        Ok(Self(Duration::from_secs(seconds.ok_or_else(hint)?)))
    }
}

/// As Go has it.
const DEFAULT: Duration = Duration::from_secs(30);
const MOST: Duration = Duration::from_secs(120);
/// Threads are looked at so often: what one does after that in its last moments is not seen.
const LOOK: Duration = Duration::from_secs(1);

/// Takes one.
///
/// # Errors
/// The system tells nothing of threads.
pub(super) async fn take(Span(span): Span) -> io::Result<Vec<u8>> {
    let (begun, began) = (Instant::now(), SystemTime::now());
    let mut seen = Seen::begin(threads::all()?);
    while begun.elapsed() < span {
        sleep_until((Instant::now() + LOOK).min(begun + span)).await;
        seen.look(threads::all()?);
    }
    let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(profile(&seen, began, begun.elapsed()).encode_to_vec())
}

/// What threads had done at the beginning, and have done since.
#[derive(Debug)]
struct Seen(HashMap<u64, (Option<Thread>, Thread)>);

impl Seen {
    fn begin(threads: Vec<Thread>) -> Self {
        Self(threads.into_iter().map(|thread| (thread.id, (Some(thread.clone()), thread))).collect())
    }

    fn look(&mut self, threads: Vec<Thread>) {
        for thread in threads {
            let (_, now) = self.0.entry(thread.id).or_insert_with(|| (None, thread.clone()));
            *now = thread;
        }
    }

    /// Each thread with the ticks of its own code and of the kernel since the beginning.
    fn ticks(&self) -> Vec<(&Thread, u64, u64)> {
        let since = |(before, now): &'_ (Option<Thread>, Thread)| {
            let (user, kernel) = before.as_ref().map_or((0, 0), |before| (before.user, before.kernel));
            // The number of a thread that has ended may be another's by now.
            (now.user.saturating_sub(user), now.kernel.saturating_sub(kernel))
        };
        let mut ticks: Vec<_> = self.0.values().map(|pair| (&pair.1, since(pair).0, since(pair).1)).collect();
        ticks.sort_by_key(|(thread, ..)| thread.id);
        ticks
    }
}

fn profile(seen: &Seen, began: Duration, lasted: Duration) -> Profile {
    let mut names = Names::new();
    let (samples, count) = (names.text("samples"), names.text("count"));
    let (cpu, nanoseconds) = (names.text("cpu"), names.text("nanoseconds"));
    let (thread_key, id_key) = (names.text("thread"), names.text("thread_id"));
    let process = names.place("postern");
    let mut found = Vec::new();
    for (thread, user, kernel) in seen.ticks() {
        let whole = names.place(&thread.name);
        for (ticks, what) in [(user, "its own code"), (kernel, "the kernel")] {
            let ticks = i64::try_from(ticks).unwrap_or(i64::MAX);
            if ticks == 0 {
                continue;
            }
            let leaf = names.place(&format!("{}: {what}", thread.name));
            found.push(Sample {
                location_id: vec![leaf, whole, process],
                value: vec![ticks, ticks.saturating_mul(TICK_NANOS)],
                label: vec![
                    Label { key: thread_key, text: names.text(&thread.name), num: 0 },
                    Label { key: id_key, text: 0, num: i64::try_from(thread.id).unwrap_or_default() },
                ],
            });
        }
    }
    let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    let time = ValueType { kind: cpu, unit: nanoseconds };
    Profile {
        sample_type: vec![ValueType { kind: samples, unit: count }, time.clone()],
        sample: found,
        location: names.places().map(|id| Location { id, line: vec![Line { function_id: id }] }).collect(),
        function: names.functions.iter().zip(1..).map(|(name, id)| Function { id, name: *name }).collect(),
        string_table: names.texts,
        time_nanos: nanos(began),
        duration_nanos: nanos(lasted),
        period_type: Some(time),
        period: TICK_NANOS,
    }
}

/// The texts of a profile, each once, and the places that are named by some of them.
#[derive(Debug)]
struct Names {
    texts: Vec<String>,
    known: HashMap<String, i64>,
    functions: Vec<i64>,
    by_text: HashMap<i64, u64>,
}

impl Names {
    fn new() -> Self {
        // The first text is empty.
        let (texts, known) = (vec![String::new()], HashMap::from([(String::new(), 0)]));
        Self { texts, known, functions: Vec::new(), by_text: HashMap::new() }
    }

    fn text(&mut self, text: &str) -> i64 {
        if let Some(index) = self.known.get(text) {
            return *index;
        }
        let index = i64::try_from(self.texts.len()).unwrap_or_default();
        self.texts.push(text.to_owned());
        self.known.insert(text.to_owned(), index);
        index
    }

    /// The number of a function, and of the one place in it.
    fn place(&mut self, name: &str) -> u64 {
        let name = self.text(name);
        let functions = &mut self.functions;
        *self.by_text.entry(name).or_insert_with(|| {
            functions.push(name);
            u64::try_from(functions.len()).unwrap_or_default()
        })
    }

    fn places(&self) -> impl Iterator<Item = u64> {
        (1..).zip(&self.functions).map(|(id, _)| id)
    }
}

/// What of `perftools.profiles.Profile` is filled in (github.com/google/pprof, `proto/profile.proto`).
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    /// The innermost first.
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
    #[prost(int64, tag = "3")]
    num: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debug::threads::testing::thread;

    #[test]
    fn a_profile_has_a_bound() {
        assert_eq!(Span::of(None), Ok(Span(Duration::from_secs(30))));
        assert_eq!(Span::of(Some("1")), Ok(Span(Duration::from_secs(1))));
        for odd in ["", "0", "-1", "121", "1.5", "x", "99999999999999999999"] {
            assert!(Span::of(Some(odd)).is_err_and(|why| why.contains("`?seconds=30`")), "{odd}");
        }
    }

    #[test]
    fn threads_that_come_and_go_are_counted_from_where_they_were() {
        let mut seen = Seen::begin(vec![thread(1, "edge-0", 100, 10), thread(2, "gone", 5, 5)]);
        seen.look(vec![thread(1, "edge-0", 150, 10), thread(3, "new", 7, 1), thread(2, "gone", 6, 5)]);
        seen.look(vec![thread(1, "edge-0", 160, 12), thread(3, "new", 8, 1)]);
        let ticks: Vec<_> = seen.ticks().into_iter().map(|(thread, user, kernel)| (thread.id, user, kernel)).collect();
        assert_eq!(ticks, [(1, 60, 2), (2, 1, 0), (3, 8, 1)]);
    }

    #[test]
    fn every_number_of_a_profile_leads_somewhere() {
        let mut seen = Seen::begin(vec![thread(1, "edge-0", 0, 0), thread(2, "edge-0", 0, 0), thread(3, "idle", 9, 9)]);
        seen.look(vec![thread(1, "edge-0", 30, 4), thread(2, "edge-0", 1, 0)]);
        let bytes = profile(&seen, Duration::from_secs(7), Duration::from_secs(1)).encode_to_vec();
        let profile = Profile::decode(&*bytes).unwrap();
        let text = |index: i64| profile.string_table[usize::try_from(index).unwrap()].as_str();
        let function = |id: u64| text(profile.function.iter().find(|function| function.id == id).unwrap().name);
        let place = |id: &u64| {
            function(profile.location.iter().find(|location| location.id == *id).unwrap().line[0].function_id)
        };
        let told: Vec<_> = profile
            .sample
            .iter()
            .map(|sample| (sample.location_id.iter().map(place).collect::<Vec<_>>(), sample.value.clone()))
            .collect();
        let own = vec!["edge-0: its own code", "edge-0", "postern"];
        let kernel = vec!["edge-0: the kernel", "edge-0", "postern"];
        let told_of = |ticks: i64| vec![ticks, ticks * 10_000_000];
        assert_eq!(told, [(own.clone(), told_of(30)), (kernel, told_of(4)), (own, told_of(1))]);
        assert_eq!(profile.string_table[0], "");
        let types: Vec<_> = profile.sample_type.iter().map(|one| (text(one.kind), text(one.unit))).collect();
        assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
        assert_eq!((profile.time_nanos, profile.duration_nanos), (7_000_000_000, 1_000_000_000));
    }
}
