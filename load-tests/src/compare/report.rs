//! The figures of a comparison: a table for people, the samples for programs, and a picture.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::peer::{NGINX, POSTERN, Peer, Skipped};
use super::scenario::{Sample, Scenario};
use crate::table::{Seen, Table, millis, shown};

/// All samples.
#[derive(Debug)]
pub(crate) struct Report {
    peers: Vec<&'static str>,
    skipped: Skipped,
    /// Bytes of each proxy before anybody asked it anything but whether it works.
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
        let (own, nginx) = (self.figures(scenario, peer), self.figures(scenario, NGINX));
        own.into_iter().zip(nginx).map(|(own, nginx)| own / nginx).collect()
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
            let kilobytes = f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX));
            table.row([
                "memory at start".to_owned(),
                (*peer).to_owned(),
                format!("{:.1} MB", kilobytes / 1024.0),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                if *peer == POSTERN { verdict("20 MB", kilobytes / 1024.0 <= 20.0) } else { String::new() },
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
                table.row([
                    scenario.to_string(),
                    (*peer).to_owned(),
                    format!("{median:.1}"),
                    format!("{} to {}", shown(seen.percentile(0), 1), shown(seen.most(), 1)),
                    shown(ratio, 2),
                    shown(of(|sample| Some(rate(sample))), 0),
                    format!("{}, {}", shown(half, 2), shown(most, 2)),
                    samples.iter().map(|sample| sample.asked.failed).sum::<u64>().to_string(),
                    if *peer == POSTERN { self.goal(scenario, median, ratio) } else { String::new() },
                ]);
            }
        }
        table
    }

    /// What the figure of the product is held against.
    fn goal(&self, scenario: Scenario, median: f64, ratio: Option<f64>) -> String {
        let most = match scenario {
            Scenario::H1 => 1.45,
            Scenario::H2 => 1.6,
            Scenario::Handshakes => 0.75,
            Scenario::Body64k | Scenario::Body10m => 1.15,
            Scenario::Idle => return verdict("18 KB", median <= 18.0),
            Scenario::Paced => return self.pace(),
            Scenario::Routes => return self.flat(median),
            Scenario::Resumed | Scenario::Websocket => return String::new(),
        };
        ratio.map_or_else(String::new, |ratio| verdict(&format!("{most} ×"), ratio <= most))
    }

    /// Latency at a fixed rate, against that of nginx.
    fn pace(&self) -> String {
        let of = |peer: &str, which: usize| -> Option<f64> {
            let seen = self.of(Scenario::Paced, peer).filter_map(|sample| sample.asked.latency?.get(which).copied());
            seen.collect::<Seen>().percentile(50)
        };
        let ratio = |which| Some(of(POSTERN, which)? / of(NGINX, which)?);
        match (ratio(0), ratio(1)) {
            (Some(half), Some(most)) => {
                verdict(&format!("p50 and p99 1.3 ×, seen {half:.2} and {most:.2}"), half <= 1.3 && most <= 1.3)
            }
            _ => String::new(),
        }
    }

    /// Processor time with many routes, against that with ten.
    fn flat(&self, ten: f64) -> String {
        let many = self.peers.iter().filter(|name| name.ends_with(" routes"));
        let most =
            many.filter_map(|name| self.figures(Scenario::Routes, name).into_iter().collect::<Seen>().percentile(50));
        let most = most.fold(ten, f64::max);
        verdict(&format!("10,000 routes within 5 %, seen {:.1} %", (most / ten - 1.0) * 100.0), most <= ten * 1.05)
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

fn verdict(goal: &str, met: bool) -> String {
    format!("{goal}: {}", if met { "met" } else { "not met" })
}

/// µs of processor time a request; or KB a connection, where that was looked at.
fn figure(sample: &Sample) -> f64 {
    let count = f64::from(u32::try_from(sample.asked.requests.max(1)).unwrap_or(u32::MAX));
    sample.bytes_each.map_or_else(|| millis(sample.cpu) * 1e3 / count, |bytes| bytes / 1024.0)
}

fn rate(sample: &Sample) -> f64 {
    f64::from(u32::try_from(sample.asked.requests).unwrap_or(u32::MAX)) / sample.asked.took.as_secs_f64()
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
