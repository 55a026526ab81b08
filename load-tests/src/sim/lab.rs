//! The machine room: a cluster of six servers, who signs people in there, and what its masters have done.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use postern_servers::Cluster;
use tokio::task::block_in_place;

use crate::compare::build;
use crate::drive::Job;
use crate::edge::{Edge, Provider, application, cluster_url};
use crate::installation::{Installation, OPTIONS, on_cluster};
use crate::people::Person;

/// All of it.
pub(super) struct Lab {
    pub(super) binary: PathBuf,
    pub(super) cluster: Cluster,
    /// Those of the members that are masters; the first is the one that has the changelog.
    masters: Vec<usize>,
    pub(super) provider: Provider,
    application: std::net::SocketAddr,
    pub(super) size: Size,
}

/// How much is done of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Requests a second for each edge.
    pub(super) rate: f64,
    /// A span in which something is measured.
    pub(super) span: Duration,
    /// People who ask at an edge before anything is measured there: so many that it has taken large pages by then. What an edge
    /// was before is moved into them, which is not what a session takes.
    pub(super) early: usize,
    /// People whose first request is measured at one edge.
    pub(super) people: usize,
    /// People whom an edge is to keep so that what a session takes is seen beside what comes and goes.
    pub(super) kept: usize,
    /// Sessions that are ended.
    pub(super) ends: usize,
    /// People who sign in.
    pub(super) sign_ins: usize,
}

const LONG: Size = Size {
    rate: 600.0,
    span: Duration::from_secs(6),
    early: 10_000,
    people: 3_000,
    kept: 25_000,
    ends: 300,
    sign_ins: 60,
};
const QUICK: Size = Size {
    rate: 200.0,
    span: Duration::from_secs(3),
    early: 10_000,
    people: 1_000,
    kept: 10_000,
    ends: 100,
    sign_ins: 20,
};

impl Lab {
    pub(super) async fn start(binary: Option<PathBuf>, quick: bool) -> Result<Self> {
        let binary = block_in_place(|| binary.map_or_else(build, Ok))?;
        tell("starting six servers");
        // Nothing is to fail here, least of all because this machine is busy.
        let cluster = block_in_place(|| Cluster::start_plain(Duration::from_secs(30), &OPTIONS));
        let changelog = block_in_place(|| cluster.owner(CHANGELOG));
        let mut masters = vec![changelog];
        for (place, member) in cluster.members().iter().enumerate() {
            let role = block_in_place(|| member.server.cli(&["ROLE"]));
            if role.starts_with("master") && place != changelog {
                masters.push(place);
            }
        }
        let size = if quick { QUICK } else { LONG };
        Ok(Self { binary, cluster, masters, provider: Provider::start().await?, application: application()?, size })
    }

    /// The process that signs in whoever is needed.
    pub(super) async fn writer(&self) -> Result<Installation> {
        Installation::start(&on_cluster(&self.cluster), 0).await
    }

    /// So many more processes, which hear what happens.
    pub(super) async fn listeners(&self, count: usize) -> Result<Installation> {
        Installation::start(&on_cluster(&self.cluster), count - 1).await
    }

    /// Starts an edge, and waits until it may be asked.
    pub(super) async fn edge(&self, max_age: u32) -> Result<Edge> {
        let more = format!("session_max_age: {max_age}s\n");
        let (postern, store) = (Command::new(&self.binary), cluster_url(&self.cluster));
        let edge = block_in_place(|| Edge::start(postern, &store, &self.provider, self.application, &more))?;
        edge.is_ready().await?;
        Ok(edge)
    }

    /// All who are needed at edges.
    pub(super) async fn crowd(&self, writer: &Installation) -> Result<Vec<Person>> {
        tell("people sign in");
        self.sign_in(writer, self.size.early + self.size.people + self.size.kept).await
    }

    pub(super) async fn sign_in(&self, writer: &Installation, count: usize) -> Result<Vec<Person>> {
        writer.sign_in_at(count, &self.provider.idp(), Person::tokens).await
    }

    /// What the masters have done up to now.
    pub(super) fn moment(&self) -> Result<Moment> {
        block_in_place(|| {
            let (mut micros, mut looks) = (Vec::new(), 0.0);
            for place in &self.masters {
                let member = self.cluster.members().get(*place).context("a master that is not there")?;
                let mut bare = member.bare()?;
                let cpu = bare.sure(&["INFO", "cpu"])?;
                micros.push(1e6 * (number(cpu.text(), "used_cpu_sys:")? + number(cpu.text(), "used_cpu_user:")?));
                // Read by nobody else than who looks at a session.
                looks += number(bare.sure(&["INFO", "commandstats"])?.text(), "cmdstat_hmget:calls=").unwrap_or(0.0);
            }
            Ok(Moment { at: Instant::now(), micros, looks })
        })
    }
}

/// What the changelog is called in the store.
const CHANGELOG: &str = "{chg}log";

/// The number behind this, in one of the lines.
fn number(text: &str, mark: &str) -> Result<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(mark)).with_context(|| format!("no {mark}"))?;
    let number: String = rest.chars().take_while(|next| next.is_ascii_digit() || *next == '.').collect();
    number.parse().with_context(|| format!("{mark} {rest}"))
}

/// What the masters have done.
#[derive(Debug)]
pub(super) struct Moment {
    at: Instant,
    /// That which has the changelog first.
    micros: Vec<f64>,
    looks: f64,
}

/// The same, between two moments.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) seconds: f64,
    pub(super) micros: Vec<f64>,
    pub(super) looks: f64,
}

impl Moment {
    pub(super) fn since(&self, before: &Self) -> Done {
        let micros = self.micros.iter().zip(&before.micros).map(|(now, before)| now - before);
        Done {
            seconds: (self.at - before.at).as_secs_f64(),
            micros: micros.collect(),
            looks: self.looks - before.looks,
        }
    }
}

impl Done {
    /// Of all masters.
    pub(super) fn all(&self) -> f64 {
        self.micros.iter().sum()
    }
}

/// Each of these once, for so many bytes.
pub(super) fn each(edge: &Edge, people: &[Person], bytes: usize) -> Vec<Job> {
    people.iter().map(|person| Job { edge: 0, request: edge.request(person, bytes).into(), fresh: false }).collect()
}

/// So many requests, of these in turn.
pub(super) fn turns(requests: &[Job], count: usize) -> Vec<Job> {
    requests.iter().cycle().take(count).cloned().collect()
}

/// Says what is going on.
pub(super) fn tell(what: &str) {
    eprintln!("{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_what_servers_tell() {
        let told = "# CPU\r\nused_cpu_sys:1.25\r\nused_cpu_user:0.5\r\n";
        assert_eq!(number(told, "used_cpu_sys:").unwrap(), 1.25);
        let told = "cmdstat_hmget:calls=12,usec=40\r\n";
        assert_eq!(number(told, "cmdstat_hmget:calls=").unwrap(), 12.0);
        assert!(number(told, "cmdstat_get:calls=").is_err());
    }
}
