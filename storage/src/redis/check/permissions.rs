//! Whether the user of the configuration may do all that Postern does. The commands are the real ones on names that nobody
//! has, written so that none changes anything: a server looks at who asks before it looks at the rest.

use std::collections::BTreeSet;

use super::super::{Command, Link, Reply};
use crate::check::{Finding, Report};
use crate::config::{Part, RedisConfig, Server, Topology};
use tokio::time::Instant;

/// A command with the arguments that follow its key, if it has one, and those before it.
type Asked = (&'static str, &'static [&'static str], Key, &'static [&'static str]);

/// Which kind of name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    None,
    Of(&'static str),
}

use Key::{None as NoKey, Of};

/// Each command once with each kind of name that it is used with.
const ASKED: &[Asked] = &[
    ("PING", &[], NoKey, &[]),
    ("INFO", &["server"], NoKey, &[]),
    ("ROLE", &[], NoKey, &[]),
    ("WAIT", &["0", "1"], NoKey, &[]),
    ("EVAL", &["return 1", "0"], NoKey, &[]),
    ("EVALSHA", &["0000000000000000000000000000000000000000", "0"], NoKey, &[]),
    ("HMGET", &[], Of("s"), &["v"]),
    // A field without a value.
    ("HSET", &[], Of("s"), &["v", "1", "g"]),
    ("DEL", &[], Of("s"), &[]),
    ("DEL", &[], Of("t"), &[]),
    ("GET", &[], Of("ue"), &[]),
    // No place in a stream.
    ("XADD", &[], Of("{chg}"), &["nowhere", "k", "v"]),
    ("XREAD", &["COUNT", "1", "STREAMS"], Of("{chg}"), &["0"]),
    ("XRANGE", &[], Of("{chg}"), &["-", "+", "COUNT", "1"]),
    ("XREVRANGE", &[], Of("{chg}"), &["+", "-", "COUNT", "1"]),
    ("GET", &[], Of("{chg}"), &[]),
    // No time.
    ("SET", &[], Of("{chg}"), &["v", "PX", "never"]),
    ("DEL", &[], Of("{chg}"), &[]),
];
/// Beside these, of who writes sessions.
const OF_AUTHN: &[Asked] = &[
    ("TIME", &[], NoKey, &[]),
    ("SCAN", &["0", "COUNT", "1"], NoKey, &[]),
    ("HGET", &[], Of("s"), &["v"]),
    ("HDEL", &[], Of("s"), &["v"]),
    ("EXISTS", &[], Of("s"), &[]),
    ("PTTL", &[], Of("s"), &[]),
    ("PEXPIREAT", &[], Of("s"), &["never"]),
    ("GET", &[], Of("t"), &[]),
    ("SET", &[], Of("t"), &["v", "PXAT", "never"]),
    ("ZADD", &[], Of("u"), &["never", "v"]),
    ("ZRANGE", &[], Of("u"), &["0", "0"]),
    ("ZREMRANGEBYSCORE", &[], Of("u"), &["never", "never"]),
    ("PTTL", &[], Of("u"), &[]),
    ("PEXPIREAT", &[], Of("u"), &["never"]),
    ("SET", &[], Of("ue"), &["v", "PXAT", "never"]),
    ("PTTL", &[], Of("ue"), &[]),
    ("PEXPIREAT", &[], Of("ue"), &["never"]),
    ("GET", &[], Of("o"), &[]),
    ("SET", &[], Of("o"), &["v", "PXAT", "never"]),
    ("ZADD", &[], Of("r"), &["never", "v"]),
    ("ZREM", &[], Of("r"), &["v"]),
    ("ZRANGE", &[], Of("r"), &["0", "0"]),
];
/// Beside these, of who leaves something for others.
const OF_DEPOSITS: &[Asked] = &[
    ("GET", &[], Of("a"), &[]),
    // No time.
    ("SET", &[], Of("a"), &["v", "PX", "never"]),
    ("DEL", &[], Of("a"), &[]),
];
/// Beside these, of a cluster.
const OF_A_CLUSTER: &[Asked] =
    &[("CLUSTER", &["NODES"], NoKey, &[]), ("ASKING", &[], NoKey, &[]), ("READONLY", &[], NoKey, &[])];

/// Tries all of them on one server.
pub(super) async fn look((config, deposits): (&RedisConfig, bool), server: &Server, link: &Link, report: &mut Report) {
    let of_a_cluster = match config.topology {
        Topology::Cluster(_) => OF_A_CLUSTER,
        Topology::Single(_) | Topology::Sentinel { .. } => &[],
    };
    let of_authn = if config.part == Part::Authn { OF_AUTHN } else { &[] };
    let of_deposits = if deposits { OF_DEPOSITS } else { &[] };
    let asked: Vec<_> = ASKED.iter().chain(of_authn).chain(of_deposits).chain(of_a_cluster).collect();
    let commands: Vec<_> = asked.iter().map(|asked| command(config, asked)).collect();
    let replies = link.call_all(&commands, Instant::now() + config.operation.saturating_mul(WORTH)).await;
    let replies = match replies {
        Ok(replies) => replies,
        Err(broken) => {
            let remedy = "see what holds the server up";
            report.add(Finding::fail("permissions", Some(server), broken.to_string(), remedy));
            return;
        }
    };
    let (mut lacks, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (asked, reply) in asked.iter().zip(&replies).filter(|(_, reply)| is_refusal(reply)) {
        // `… to access one of the keys …`, `… to run the 'x' command`.
        match (asked.2, reply) {
            (Of(kind), Reply::Error(error)) if error.contains(" access ") => names.insert(pattern(config, kind)),
            _ => lacks.insert(word(asked)),
        };
    }
    if lacks.is_empty() && names.is_empty() {
        report.add(Finding::ok("permissions", Some(server), "every command and name that is needed".to_owned()));
        return;
    }
    let listed = |words: &BTreeSet<String>| words.iter().cloned().collect::<Vec<_>>().join(" ");
    let what = match (lacks.is_empty(), names.is_empty()) {
        (false, true) => format!("the user may not run {}", listed(&lacks)),
        (true, _) => format!("the user may not use the names {}", listed(&names)),
        (false, false) => format!("the user may not run {} nor use the names {}", listed(&lacks), listed(&names)),
    };
    let adds = lacks.iter().map(|command| format!("+{}", command.to_lowercase()));
    let adds: Vec<_> = adds.chain(names.iter().map(|name| format!("~{name}"))).collect();
    let remedy = format!("add to its ACL: {}", adds.join(" "));
    report.add(Finding::new(crate::check::Level::Fail, "permissions", Some(server), what, Some(remedy)));
}

/// All of them are sent in one piece.
const WORTH: u32 = 4;

fn is_refusal(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(error) if error.starts_with("NOPERM"))
}

fn command(config: &RedisConfig, (name, before, key, after): &Asked) -> Command {
    let command = Command::new(name).args(before.iter().copied());
    let command = match key {
        NoKey => command,
        Of("{chg}") => command.arg(format!("{}{{chg}}postern-store-check", config.prefix)),
        Of(kind) => command.arg(format!("{}{kind}:{{postern-store-check}}", config.prefix)),
    };
    command.args(after.iter().copied())
}

fn pattern(config: &RedisConfig, kind: &str) -> String {
    if kind == "{chg}" { format!("{}{{chg}}*", config.prefix) } else { format!("{}{kind}:*", config.prefix) }
}

fn word((name, before, ..): &Asked) -> String {
    match (*name, before.first()) {
        ("CLUSTER", Some(sub)) => format!("{name}|{sub}"),
        _ => (*name).to_owned(),
    }
}
