//! The figures of a comparison: a table for people, the samples for programs, and a picture.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::peer::{ENVOY, HOP, HOP_FIELDS, NGINX, POSTERN, Peer, Skipped};
use super::scenario::{Sample, Scenario};
use crate::table::{Seen, Table, count, millis, shown};

/// All samples.
#[derive(Debug)]
pub(crate) struct Report {
    peers: Vec<&'static str>,
    skipped: Skipped,
    /// Bytes of each proxy before anybody asked it anything.
    memory: Vec<u64>,
    samples: Vec<(Scenario, &'static str, Sample)>,
}

impl Report {
    pub(crate) fn new(peers: &[Peer], skipped: Skipped) -> Self {
        Self {
            peers: peers.iter().map(Peer::name).collect(),
            memory: peers.iter().map(|peer| peer.processes.memory()).collect(),
            skipped,
            samples: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, scenario: Scenario, peer: &'static str, sample: Sample) {
        self.samples.push((scenario, peer, sample));
    }

    fn of(&self, scenario: Scenario, peer: &str) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |(of, name, _)| *of == scenario && *name == peer).map(|(_, _, sample)| sample)
    }

    /// What a scenario is judged by: µs of processor time a request, or KB a connection.
    fn figures(&self, scenario: Scenario, peer: &str) -> Vec<f64> {
        self.of(scenario, peer).map(figure).collect()
    }

    /// Ratios to nginx within the same round.
    fn ratios(&self, scenario: Scenario, peer: &str) -> Seen {
        self.pairs(scenario, (peer, NGINX), figure).map(|[own, nginx]| own / nginx).collect()
    }

    /// What two proxies showed in the same round.
    fn pairs<'a>(
        &'a self,
        scenario: Scenario,
        (one, other): (&'a str, &'a str),
        of: impl Fn(&Sample) -> f64 + 'a,
    ) -> impl Iterator<Item = [f64; 2]> + 'a {
        self.of(scenario, one).zip(self.of(scenario, other)).map(move |(one, other)| [of(one), of(other)])
    }

    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new(&[
            "load",
            "proxy",
            "µs of processor a request, KB a connection: median",
            "least to most",
            "× nginx-plain of the round",
            "requests a second",
            "p50, p99 in ms",
            "failed",
            "goal",
        ]);
        for (peer, bytes) in self.peers.iter().zip(&self.memory) {
            let kilobytes = count(bytes / 1024);
            let goal = Verdict::of(*peer == POSTERN, || Verdict::new("20 MB", kilobytes / 1024.0 <= 20.0));
            let goal = goal.told(&mut table);
            table.row([
                "memory at start".to_owned(),
                (*peer).to_owned(),
                format!("{:.1} MB", kilobytes / 1024.0),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                goal,
            ]);
        }
        for scenario in Scenario::all() {
            for peer in &self.peers {
                let seen: Seen = self.figures(scenario, peer).into_iter().collect();
                let Some(median) = seen.percentile(50) else { continue };
                let samples: Vec<_> = self.of(scenario, peer).collect();
                let of = |what: fn(&Sample) -> Option<f64>| -> Option<f64> {
                    samples.iter().filter_map(|sample| what(sample)).collect::<Seen>().percentile(50)
                };
                let [half, most] = [
                    of(|sample| sample.asked.latency.map(|[half, _]| half)),
                    of(|sample| sample.asked.latency.map(|[_, most]| most)),
                ];
                let ratio = self.ratios(scenario, peer).percentile(50);
                let judge = || Verdict::of(*peer == POSTERN, || self.goal(scenario, median, ratio));
                let goal = Verdict::of(peer.starts_with(POSTERN), || self.unless_failed(scenario, &[*peer], judge));
                let goal = goal.told(&mut table);
                table.row([
                    scenario.to_string(),
                    (*peer).to_owned(),
                    format!("{median:.1}"),
                    format!("{} to {}", shown(seen.percentile(0), 1), shown(seen.most(), 1)),
                    shown(ratio, 2),
                    shown(of(|sample| Some(rate(sample))), 0),
                    format!("{}, {}", shown(half, 2), shown(most, 2)),
                    self.failed(scenario, peer).to_string(),
                    goal,
                ]);
            }
        }
        for hop in [HOP, HOP_FIELDS] {
            let above: Seen = self.pairs(Scenario::H1, (POSTERN, hop), figure).map(|[own, hop]| own - hop).collect();
            let Some(median) = above.percentile(50) else { continue };
            let judge = || Verdict::of(hop == HOP, || Verdict::new("1.5 µs", median <= 1.5));
            let goal = self.unless_failed(Scenario::H1, &[POSTERN, hop], judge).told(&mut table);
            table.row([
                format!("{}: above {hop}", Scenario::H1),
                POSTERN.to_owned(),
                format!("{median:.1}"),
                format!("{} to {}", shown(above.percentile(0), 1), shown(above.most(), 1)),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                goal,
            ]);
        }
        table
    }

    /// How many requests were not answered as they should have been.
    fn failed(&self, scenario: Scenario, peer: &str) -> u64 {
        self.of(scenario, peer).map(|sample| sample.asked.failed).sum()
    }

    /// What was refused or cut costs less than what was asked for: there no figure meets anything.
    fn unless_failed(&self, scenario: Scenario, peers: &[&str], judge: impl FnOnce() -> Verdict) -> Verdict {
        let sound = peers.iter().all(|peer| self.failed(scenario, peer) == 0);
        if sound { judge() } else { Verdict::new("no request fails", false) }
    }

    /// What the figure of the product is held against.
    fn goal(&self, scenario: Scenario, median: f64, ratio: Option<f64>) -> Verdict {
        let most = match scenario {
            Scenario::H1 => return self.beside(scenario, 1.45, ratio).and(self.beside_envoy()),
            Scenario::H2 => 1.6,
            Scenario::Handshakes => 0.75,
            Scenario::Body64k | Scenario::Body10m => 1.15,
            Scenario::Idle => return Verdict::new("18 KB", median <= 18.0),
            Scenario::Paced => return self.pace(),
            Scenario::Routes => return self.flat(),
            Scenario::Resumed | Scenario::Websocket => return Verdict::default(),
        };
        self.beside(scenario, most, ratio)
    }

    /// Processor time, against that of nginx.
    fn beside(&self, scenario: Scenario, most: f64, ratio: Option<f64>) -> Verdict {
        ratio.map_or_else(Verdict::default, |ratio| {
            self.unless_failed(scenario, &[NGINX], || Verdict::new(&format!("{most} ×"), ratio <= most))
        })
    }

    /// Processor time, against that of a proxy which asks somebody else for each request.
    fn beside_envoy(&self) -> Verdict {
        let ratios: Seen = self.pairs(Scenario::H1, (POSTERN, ENVOY), figure).map(|[own, envoy]| own / envoy).collect();
        ratios.percentile(50).map_or_else(Verdict::default, |ratio| {
            let goal = format!("0.22 × {ENVOY}, seen {ratio:.2}");
            self.unless_failed(Scenario::H1, &[ENVOY], || Verdict::new(&goal, ratio <= 0.22))
        })
    }

    /// Latency at a fixed rate, against that of nginx in the same round.
    fn pace(&self) -> Verdict {
        let ratio = |which: usize| {
            let of =
                |sample: &Sample| sample.asked.latency.and_then(|both| both.get(which).copied()).unwrap_or(f64::NAN);
            let ratios = self.pairs(Scenario::Paced, (POSTERN, NGINX), of).map(|[own, nginx]| own / nginx);
            ratios.filter(|ratio| ratio.is_finite()).collect::<Seen>().percentile(50)
        };
        match (ratio(0), ratio(1)) {
            (Some(half), Some(most)) => {
                let goal = format!("p50 and p99 1.3 ×, seen {half:.2} and {most:.2}");
                self.unless_failed(Scenario::Paced, &[NGINX], || Verdict::new(&goal, half <= 1.3 && most <= 1.3))
            }
            _ => Verdict::default(),
        }
    }

    /// Processor time with many routes, against that with ten in the same round.
    fn flat(&self) -> Verdict {
        let many: Vec<_> = self.peers.iter().copied().filter(|name| name.ends_with(" routes")).collect();
        let more = many.iter().filter_map(|name| {
            let ratios = self.pairs(Scenario::Routes, (name, POSTERN), figure).map(|[many, ten]| many / ten);
            ratios.collect::<Seen>().percentile(50)
        });
        more.reduce(f64::max).map_or_else(Verdict::default, |most| {
            let goal = format!("10,000 routes within 5 %, seen {:+.1} %", (most - 1.0) * 100.0);
            self.unless_failed(Scenario::Routes, &many, || Verdict::new(&goal, most <= 1.05))
        })
    }

    /// Everything, as JSON.
    fn json(&self) -> Value {
        let samples = self.samples.iter().map(|(scenario, peer, sample)| {
            json!({
                "load": scenario.to_string(),
                "proxy": peer,
                "requests": sample.asked.requests,
                "failed": sample.asked.failed,
                "seconds": sample.asked.took.as_secs_f64(),
                "cpu_seconds": sample.cpu.as_secs_f64(),
                "figure": figure(sample),
                "p50_ms": sample.asked.latency.map(|[half, _]| half),
                "p99_ms": sample.asked.latency.map(|[_, most]| most),
            })
        });
        json!({
            "proxies": self.peers.iter().zip(&self.memory).map(|(name, bytes)| json!({ "name": name, "bytes_at_start": bytes })).collect::<Vec<_>>(),
            "left_out": self.skipped.iter().map(|(name, why)| json!({ "name": name, "why": why })).collect::<Vec<_>>(),
            "samples": samples.collect::<Vec<_>>(),
        })
    }

    /// A picture: for each load a bar for each proxy.
    fn svg(&self) -> String {
        const ROW: usize = 18;
        let (mut bars, mut y) = (String::new(), 10);
        for scenario in Scenario::all() {
            let medians: Vec<_> = self
                .peers
                .iter()
                .filter_map(|peer| {
                    Some((peer, self.figures(scenario, peer).into_iter().collect::<Seen>().percentile(50)?))
                })
                .collect();
            let Some(most) = medians.iter().map(|(_, median)| *median).reduce(f64::max) else { continue };
            y += ROW;
            let _infallible = writeln!(bars, r#"<text x="10" y="{y}" font-weight="bold">{scenario}</text>"#);
            for (peer, median) in medians {
                y += ROW;
                let colour = if peer.starts_with(POSTERN) { "#3b6ea5" } else { "#9aa5b1" };
                let (width, base) = (median / most * 400.0, y - 12);
                let _infallible = writeln!(
                    bars,
                    r#"<text x="10" y="{y}">{peer}</text><rect x="220" y="{base}" width="{width:.1}" height="13" fill="{colour}"/><text x="{:.1}" y="{y}">{median:.1}</text>"#,
                    width + 226.0
                );
            }
            y += ROW / 2;
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{bars}</svg>\n",
            y + ROW
        )
    }

    /// Writes all three into a folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let file = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())
        };
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        file("compare.json", format!("{:#}\n", self.json()))?;
        file("compare.md", self.table().to_string())?;
        file("compare.svg", self.svg())
    }
}

/// What became of a goal; nothing where there is none, or nothing to hold it against.
#[derive(Debug, Default)]
struct Verdict {
    text: String,
    missed: bool,
}

impl Verdict {
    fn new(goal: &str, met: bool) -> Self {
        Self { text: format!("{goal}: {}", if met { "met" } else { "not met" }), missed: !met }
    }

    fn of(has_goal: bool, judge: impl FnOnce() -> Self) -> Self {
        if has_goal { judge() } else { Self::default() }
    }

    /// Both.
    fn and(self, other: Self) -> Self {
        let texts = [self.text, other.text].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
        Self { text: texts.join("; "), missed: self.missed || other.missed }
    }

    /// How a table says it, which fails with it.
    fn told(self, table: &mut Table) -> String {
        if self.missed {
            table.fail();
        }
        self.text
    }
}

/// µs of processor time a request; or KB a connection, where that was looked at.
fn figure(sample: &Sample) -> f64 {
    let requests = count(sample.asked.requests.max(1));
    sample.bytes_each.map_or_else(|| millis(sample.cpu) * 1e3 / requests, |bytes| bytes / 1024.0)
}

fn rate(sample: &Sample) -> f64 {
    count(sample.asked.requests) / sample.asked.took.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::ask::Asked;
    use super::*;

    fn sample(micros: u64) -> Sample {
        let asked = Asked { requests: 1_000, failed: 0, took: Duration::from_secs(1), latency: Some([0.1, 0.5]) };
        Sample { asked, cpu: Duration::from_micros(micros * 1_000), bytes_each: None }
    }

    fn report(rounds: &[(u64, u64)]) -> Report {
        let mut report = Report {
            peers: vec![NGINX, POSTERN],
            skipped: Vec::new(),
            memory: vec![1 << 20, 30 << 20],
            samples: Vec::new(),
        };
        for (nginx, postern) in rounds {
            report.add(Scenario::H1, NGINX, sample(*nginx));
            report.add(Scenario::H1, POSTERN, sample(*postern));
        }
        report
    }

    #[test]
    fn ratios_are_of_the_same_round_and_the_goal_is_judged_by_their_median() {
        let report = report(&[(10, 14), (20, 28), (10, 30)]);
        assert_eq!(report.ratios(Scenario::H1, POSTERN).percentile(50), Some(1.4));
        let table = report.table().to_string();
        assert!(table.contains("| HTTP/1.1, 1 KB | postern | 28.0 | 14.0 to 30.0 | 1.40 |"), "{table}");
        assert!(table.contains("1.45 ×: met") && table.contains("20 MB: not met"), "{table}");
    }

    #[test]
    fn a_goal_that_is_missed_fails_and_one_that_nothing_is_held_against_does_not() {
        let failed = |memory: u64, rounds: &[(u64, u64)]| {
            let report = Report { memory: vec![1 << 20, memory << 20], ..report(rounds) };
            report.table().has_failed()
        };
        assert!(!failed(20, &[(10, 14)]));
        assert!(failed(21, &[(10, 14)]));
        assert!(failed(20, &[(10, 15)]));
        let mut alone = report(&[]);
        alone.memory = vec![0, 0];
        alone.add(Scenario::H1, POSTERN, sample(99));
        assert!(!alone.table().has_failed(), "no nginx, no ratio");
    }

    #[test]
    fn no_row_says_met_of_what_failed() {
        let row = |failing: &str, of: Scenario, wanted: &str| {
            let mut report = report(&[(10, 11)]);
            report.memory = vec![0; 5];
            report.peers.extend([HOP, HOP_FIELDS, "postern, 10,000 routes"]);
            report.add(Scenario::H1, HOP, sample(10));
            report.add(Scenario::H1, HOP_FIELDS, sample(10));
            report.add(Scenario::Routes, POSTERN, sample(10));
            report.add(Scenario::Routes, "postern, 10,000 routes", sample(10));
            for (scenario, peer, sample) in &mut report.samples {
                sample.asked.failed = u64::from(*peer == failing && *scenario == of);
            }
            let table = report.table();
            let text = table.to_string();
            let row = text.lines().find(|row| row.starts_with(wanted)).unwrap_or_else(|| panic!("{wanted}\n{text}"));
            (row.contains("no request fails: not met"), row.contains(": met"), table.has_failed())
        };
        let gate = "| HTTP/1.1, 1 KB: above pingora, bare hop |";
        let (own, routes) = ("| HTTP/1.1, 1 KB | postern |", format!("| {} | postern |", Scenario::Routes));
        for wanted in [gate, own, &routes] {
            assert_eq!(row("nobody", Scenario::H1, wanted), (false, true, false), "{wanted}");
        }
        assert_eq!(row(POSTERN, Scenario::H1, own), (true, false, true));
        assert_eq!(row(POSTERN, Scenario::H1, gate), (true, false, true));
        assert_eq!(row(HOP, Scenario::H1, gate), (true, false, true), "nor above a hop that refused");
        let fields = "| HTTP/1.1, 1 KB: above pingora, hop with our fields |";
        assert_eq!(row("nobody", Scenario::H1, fields), (false, false, false), "no goal");
        assert_eq!(row(HOP_FIELDS, Scenario::H1, fields), (true, false, true));
        assert_eq!(row(NGINX, Scenario::H1, own), (true, false, true), "nor beside a proxy that refused");
        assert_eq!(row("postern, 10,000 routes", Scenario::Routes, &routes), (true, false, true));
    }

    #[test]
    fn each_goal_is_judged_by_the_round_it_was_seen_in() {
        let mut report = report(&[(10, 14)]);
        report.peers.extend([ENVOY, HOP, HOP_FIELDS, "postern, 10,000 routes"]);
        report.memory.resize(6, 0);
        report.add(Scenario::H1, ENVOY, sample(70));
        report.add(Scenario::H1, HOP, sample(12));
        report.add(Scenario::H1, HOP_FIELDS, sample(13));
        for (ten, many) in [(10, 10), (20, 23), (10, 11)] {
            report.add(Scenario::Routes, POSTERN, sample(ten));
            report.add(Scenario::Routes, "postern, 10,000 routes", sample(many));
        }
        let late = |by: f64| {
            let mut sample = sample(10);
            sample.asked.latency = Some([0.1 * by, 0.5 * by]);
            sample
        };
        for (nginx, own) in [(1.0, 1.2), (4.0, 4.0), (1.0, 2.0)] {
            report.add(Scenario::Paced, NGINX, late(nginx));
            report.add(Scenario::Paced, POSTERN, late(own));
        }
        let told = report.table().to_string();
        for part in [
            "1.45 ×: met; 0.22 × envoy, jwt of ext_authz, seen 0.20: met",
            "above pingora, bare hop | postern | 2.0 | 2.0 to 2.0 |  |  |  |  | 1.5 µs: not met",
            "above pingora, hop with our fields | postern | 1.0 | 1.0 to 1.0 |  |  |  |  |  |",
            "10,000 routes within 5 %, seen +10.0 %: not met",
            "p50 and p99 1.3 ×, seen 1.20 and 1.20: met",
        ] {
            assert!(told.contains(part), "{part}\n{told}");
        }
    }

    #[test]
    fn the_folder_has_the_samples_the_table_and_a_picture() {
        let folder = tempfile::tempdir().unwrap();
        report(&[(10, 14)]).write(&folder.path().join("figures")).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join("figures").join(name)).unwrap();
        let json: Value = serde_json::from_str(&read("compare.json")).unwrap();
        assert_eq!(json["samples"][1]["figure"], 14.0);
        assert!(read("compare.svg").contains("<rect x=\"220\""));
        assert!(read("compare.md").contains("nginx-plain"));
    }
}
