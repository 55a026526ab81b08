//! Runs one case: sends it, reads what comes back, and asks a last question that tells that everything before it is over.

use anyhow::{Context, Result};

use super::bytes::latin1;
use super::case::{Case, Field, Over};
use super::edge::Edge;
use super::got::Outcome;
use super::upstream::{FENCE, Script, Seen};
use super::{h1, h2};
use crate::support::eventually;

/// What came of a case, and what the upstream has seen of it.
pub(super) async fn run(edge: &Edge, case: &Case, over: Over) -> Result<(Outcome, Vec<Seen>)> {
    let first = edge.upstream.count();
    let script = case.answer.as_ref().map(|answer| Script {
        bytes: latin1(&repeated(case, answer)),
        early: case.early,
        close: case.closes,
    });
    edge.upstream.answer(script);
    let outcome = match over {
        Over::H1 | Over::Both => over_h1(edge, case, first).await,
        Over::H2 => over_h2(edge, case, first).await,
    };
    edge.upstream.answer(None);
    let outcome = outcome?;
    if !outcome.usable {
        fence(edge).await?;
    }
    let cut = case.up.all().iter().filter(|up| up.parts().cut).count();
    let seen = || edge.upstream.seen(first);
    if cut > 0 {
        let is_cut = async || (seen().iter().filter(|seen| seen.cut).count() >= cut).then_some(());
        eventually("the upstream's connection to be cut", is_cut).await?;
    }
    Ok((outcome, seen()))
}

/// A connection of its own that asks for the fence.
async fn fence(edge: &Edge) -> Result<()> {
    let mut client = h1::Client::new(edge.connect("open", "http/1.1").await?);
    client.send(&asked_for_fence(edge, "open")).await;
    let got = client.answer(false).await.context("the fence")?;
    anyhow::ensure!(got.as_ref().is_some_and(|got| got.status == 200), "the fence after it: {got:?}");
    Ok(())
}

fn asked_for_fence(edge: &Edge, name: &str) -> String {
    let host = if name == "elsewhere." { "elsewhere.localhost".to_owned() } else { edge.host("open") };
    format!("GET {FENCE} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// Waits until the upstream has a head that it did not have before.
async fn came_up(edge: &Edge, first: usize) -> Result<()> {
    let came = async || (edge.upstream.count() > first).then_some(());
    eventually("the upstream to see a request", came).await
}

async fn over_h1(edge: &Edge, case: &Case, first: usize) -> Result<Outcome> {
    let name = case.sni.as_deref().unwrap_or("open");
    let mut client = h1::Client::new(edge.connect(name, "http/1.1").await?);
    let mut outcome = Outcome::default();
    let wanted = case.status.all();
    let writes = match &case.send {
        Some(send) => send.all().iter().map(|write| edge.fill(&repeated(case, write))).collect(),
        None => vec![request(edge, case)],
    };
    let head_only = writes.first().is_some_and(|write| write.starts_with("HEAD "));
    for write in &writes {
        match write.as_str() {
            "@upstream" => came_up(edge, first).await?,
            "@answer" => outcome.answers.extend(client.answer(head_only).await?),
            "@half-close" => client.half_close().await,
            "@leave" => return Ok(outcome),
            bytes => client.send(bytes).await,
        }
    }
    while outcome.answers.len() < wanted.len() {
        let Some(got) = client.answer(head_only).await? else { break };
        outcome.answers.push(got);
    }
    if let Some(tail) = &case.tail {
        outcome.tail = client.bytes(tail.chars().count()).await?;
        return Ok(outcome);
    }
    if case.either {
        return Ok(outcome);
    }
    if case.closed || outcome.answers.len() < wanted.len() {
        (outcome.closed, outcome.rest) = client.end().await?;
        return Ok(outcome);
    }
    client.send(&asked_for_fence(edge, name)).await;
    let fence = client.answer(false).await?;
    outcome.closed = fence.is_none();
    outcome.usable = fence.is_some_and(|got| got.status == 200 && got.body == "ok");
    Ok(outcome)
}

/// The parts of a request as HTTP/1 spells them.
fn request(edge: &Edge, case: &Case) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", case.method, case.target, case.host);
    for line in case.fields.iter().map(Field::line).chain(session(edge, case)) {
        head += &line;
        head += "\r\n";
    }
    let body = case.body.as_ref().map(|body| body.all().concat());
    if let Some(body) = &body {
        head += &format!("Content-Length: {}\r\n", body.chars().count());
    }
    edge.fill(&repeated(case, &format!("{head}\r\n{}", body.or_else(|| case.after.clone()).unwrap_or_default())))
}

fn session(edge: &Edge, case: &Case) -> Option<String> {
    let name = case.host.split('.').next().unwrap_or_default();
    case.session.then(|| format!("Cookie: _pomerium={}", edge.session(name)))
}

fn repeated(case: &Case, text: &str) -> String {
    match &case.many {
        Some((piece, times)) => text.replace("{many}", &piece.repeat(*times)),
        None => text.to_owned(),
    }
}

async fn over_h2(edge: &Edge, case: &Case, first: usize) -> Result<Outcome> {
    let name = case.sni.as_deref().unwrap_or("open");
    let mut client = h2::Client::new(edge.connect(name, "h2").await?).await?;
    let mut outcome = Outcome::default();
    tokio::select! {
        got = client.ask(frames(edge, case)) => match got? {
            Some(got) => outcome.answers.push(got),
            None => outcome.closed = true,
        },
        // Who waits no longer resets the stream.
        came = came_up(edge, first), if case.cut => {
            came?;
            outcome.closed = true;
        }
    }
    // A stream error leaves the connection usable, a connection error does not: both are answers.
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let host = edge.host("open");
    let fields = vec![own(":method", "GET"), own(":scheme", "https"), own(":authority", &host), own(":path", FENCE)];
    let fence = client.ask(h2::Frames { fields, ..h2::Frames::default() }).await?;
    outcome.usable = fence.is_some_and(|got| got.status == 200 && got.body == "ok");
    Ok(outcome)
}

/// The parts of a request as HTTP/2 spells them.
fn frames(edge: &Edge, case: &Case) -> h2::Frames {
    let own = |(name, value): (&str, &str)| (name.to_owned(), edge.fill(&repeated(case, value)));
    let usual =
        [(":method", &*case.method), (":scheme", "https"), (":authority", &*case.host), (":path", &*case.target)];
    let mut fields: Vec<_> = match &case.pseudo {
        Some(pseudo) => pseudo.iter().map(|(name, value)| own((name, value))).collect(),
        None => usual.map(own).to_vec(),
    };
    // Only `[name, value]` is taken as it is: lines are shared with HTTP/1, where names have capitals.
    fields.extend(case.fields.iter().map(|field| match field {
        Field::Line(_) => own((&field.pair().0.to_ascii_lowercase(), field.pair().1)),
        Field::Pair(name, value) => own((name, value)),
    }));
    fields.extend(session(edge, case).iter().map(|line| own(("cookie", line.trim_start_matches("Cookie: ")))));
    h2::Frames {
        fields,
        pieces: case.frames,
        data: case.body.as_ref().map(|body| body.all().to_vec()),
        trailers: case.trailers.clone(),
        open: case.cut,
    }
}
