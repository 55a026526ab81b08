//! Raw bytes of HTTP/1 and HTTP/2 against one running edge, in front of an upstream that keeps every byte it gets.
//!
//! The cases are tables, `cases/*.yaml`; [`case::Case`] says what a row may have. Each names the properties that it shows,
//! and the properties that must be shown are counted here. Besides its own expectations, whatever reaches the upstream in
//! any case is held to what is true of every request ([`judge::breaches`]).
//!
//! Below HTTP, [`conformance`] goes through the standards of HTTP/2 frame by frame, and [`attacks`] does all that is slow or
//! too much beside somebody who has nothing to do with it. [`laws`] and [`differential`] hold for what nobody thought of.

mod attacks;
mod bystander;
mod bytes;
mod case;
mod conformance;
mod differential;
mod edge;
mod got;
mod h1;
mod h2;
mod judge;
mod laws;
mod reading;
mod run;
mod script;
mod upstream;
mod wire;

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, ensure};
use serde::Deserialize;

use bystander::Bystander;
use case::{Case, Over};
use edge::Edge;

const TABLES: &[(&str, &str)] = &[
    ("framing", include_str!("cases/framing.yaml")),
    ("heads", include_str!("cases/heads.yaml")),
    ("answers", include_str!("cases/answers.yaml")),
    ("h2", include_str!("cases/h2.yaml")),
    ("paths", include_str!("cases/paths.yaml")),
    ("hosts", include_str!("cases/hosts.yaml")),
    ("routes", include_str!("cases/routes.yaml")),
    ("fields", include_str!("cases/fields.yaml")),
    ("upgrades", include_str!("cases/upgrades.yaml")),
];

/// A configuration that is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    name: String,
    rules: Vec<String>,
    /// The routes, as in a file.
    routes: String,
    /// Is in what `check` says.
    says: String,
}

fn refused() -> Result<Vec<Refused>> {
    let document = postern_policy::document::read(include_str!("cases/configuration.yaml"));
    let document = document.map_err(|mistakes| anyhow!("{mistakes:?}"))?;
    Ok(serde_json::from_value(document.to_json())?)
}

fn cases() -> Result<Vec<(&'static str, Case)>> {
    let mut cases = Vec::new();
    for (file, text) in TABLES {
        cases.extend(case::read(file, text)?.into_iter().map(|case| (*file, case)));
    }
    Ok(cases)
}

#[tokio::test]
async fn every_raw_case_holds() -> Result<()> {
    let edge = Edge::start().await?;
    let mut bystander = Bystander::new(&edge).await?;
    let (mut failed, mut ran) = (Vec::new(), 0);
    for (file, case) in cases()? {
        for over in [Over::H1, Over::H2].into_iter().filter(|over| case.over == *over || case.over == Over::Both) {
            ran += 1;
            let mut faults = faults(&edge, &case, over).await;
            faults.extend(bystander.ask(&edge).await.err().map(|error| format!("the bystander: {error:#}")));
            if !faults.is_empty() {
                let (name, rules) = (&case.name, case.rules.join(" "));
                failed.push(format!("{file}: {name} ({rules}, {over:?})\n  {}", faults.join("\n  ")));
            }
        }
    }
    for refused in refused()? {
        ran += 1;
        let (taken, told) = edge.check(&refused.routes)?;
        if taken || !told.contains(&refused.says) {
            failed.push(format!("configuration: {} ({})\n{told}", refused.name, refused.rules.join(" ")));
        }
    }
    ensure!(failed.is_empty(), "{} of {ran} failed\n{}", failed.len(), failed.join("\n"));
    Ok(())
}

/// All that is wrong with what came of a case, one line each.
async fn faults(edge: &Edge, case: &Case, over: Over) -> Vec<String> {
    let (outcome, seen) = match run::run(edge, case, over).await {
        Ok(both) => both,
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut faults = judge::faults(case, over, &outcome, &seen);
    let assertions = case.up.all().iter().zip(&seen).filter_map(|(up, seen)| Some((up.parts().assertion?, seen)));
    for (host, seen) in assertions {
        let token = seen.values("x-pomerium-jwt-assertion").join("|");
        match edge.faults_of_assertion(&token, &host).await {
            Ok(more) => faults.extend(more),
            Err(error) => faults.push(format!("S-042: {error:#}")),
        }
    }
    for seen in &seen {
        let breaches = judge::breaches(seen, edge.all_sessions());
        faults.extend(breaches.iter().map(|breach| format!("{breach}\n    in {:?}", seen.head)));
    }
    if !faults.is_empty() {
        faults.extend(
            outcome
                .answers
                .iter()
                .map(|got| format!("got {} {:?}", got.status, got.body.get(..300).unwrap_or(&got.body))),
        );
        faults.extend(seen.iter().map(|seen| format!("seen {:?} {:?}", seen.head, bytes::text(&seen.body))));
    }
    faults
}

/// What must be shown, each by one case at least.
#[test]
fn the_table_shows_every_property_that_must_hold() -> Result<()> {
    let cases = cases()?;
    let refused = refused()?;
    let rules = cases.iter().flat_map(|(_, case)| &case.rules).chain(refused.iter().flat_map(|refused| &refused.rules));
    let shown: BTreeSet<&str> = rules.map(String::as_str).collect();
    let must = (1..=18).chain(21..=36).chain(38..=41).map(|number| format!("S-{number:03}"));
    let missing: Vec<String> = must.filter(|rule| !shown.contains(rule.as_str())).collect();
    assert!(missing.is_empty(), "no case shows {missing:?}");
    let attack = |(_, case): &&(&str, Case)| {
        case.rules.iter().any(|rule| (1..=20).any(|number| *rule == format!("S-{number:03}")))
    };
    let over = |over: Over| {
        cases.iter().filter(attack).filter(|(_, case)| case.over == over || case.over == Over::Both).count()
    };
    let (h1, h2) = (over(Over::H1), over(Over::H2));
    assert!(h1 >= 250 && h2 >= 180, "{h1} cases of S-001 to S-020 over HTTP/1 and {h2} over HTTP/2");
    let names: BTreeSet<&str> = cases.iter().map(|(_, case)| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    Ok(())
}
