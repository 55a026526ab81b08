//! Writes that replicas are to have before anybody hears that they are done.
//!
//! `WAIT` holds up whatever comes behind it on its connection. So one batch is under way at a time: what is asked meanwhile goes
//! together after it, with one `WAIT` for all, and what nobody waits for any more is not sent.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::link::Broken;
use super::node::Kept;
use super::router::{ATTEMPT, DURABLE_PLACES};
use super::{Command, Reply};

/// The durable writes of one server.
#[derive(Debug)]
pub(super) struct Durable {
    queue: mpsc::Sender<Write>,
}

/// What goes in one piece, for somebody who waits.
#[derive(Debug)]
struct Write {
    commands: Vec<Command>,
    copies: u32,
    tell: oneshot::Sender<Result<Vec<Reply>, Broken>>,
}

impl Durable {
    /// Writes on that connection until `stop`.
    pub(super) fn start(kept: Kept, stop: CancellationToken) -> Self {
        let (queue, writes) = mpsc::channel(DURABLE_PLACES);
        // What is not answered by then hears that the connection is gone: its end of the channel is dropped.
        drop(tokio::spawn(async move { stop.run_until_cancelled(write(&kept, writes)).await }));
        Self { queue }
    }

    /// Sends commands in one piece, and waits for as many replicas; gives all answers, the last one that to `WAIT`, if any
    /// replica was to be waited for.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) async fn call(&self, commands: Vec<Command>, copies: u32, until: Instant) -> Result<Vec<Reply>, Broken> {
        let (tell, told) = oneshot::channel();
        let queued = self.queue.try_send(Write { commands, copies, tell });
        queued.map_err(|_| Broken::Lost("too many writes wait for it".to_owned()))?;
        match timeout_at(until, told).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) => Err(Broken::Lost("the connection was given up".to_owned())),
            Err(_) => Err(Broken::Silent),
        }
    }
}

/// One batch after the other.
async fn write(kept: &Kept, mut writes: mpsc::Receiver<Write>) {
    let mut queued = Vec::new();
    while writes.recv_many(&mut queued, BATCH).await > 0 {
        let batch: Vec<_> = queued.drain(..).filter(|write| !write.tell.is_closed()).collect();
        if batch.is_empty() {
            continue;
        }
        let sent = send(kept, &batch).await;
        for (number, write) in batch.into_iter().enumerate() {
            let own = |(answers, confirmed): &(Vec<Vec<Reply>>, Option<Reply>)| {
                let mut own = answers.get(number).cloned().unwrap_or_default();
                own.extend(confirmed.clone().filter(|_| write.copies > 0));
                own
            };
            // Whoever has gone meanwhile asks again, if at all.
            let _gone = write.tell.send(sent.as_ref().map(own).map_err(Clone::clone));
        }
    }
}

/// The answers to each write of a batch, and that to the `WAIT` for all of them.
async fn send(kept: &Kept, batch: &[Write]) -> Result<(Vec<Vec<Reply>>, Option<Reply>), Broken> {
    let until = Instant::now() + ATTEMPT;
    let link = kept.link(until).await?;
    let copies = batch.iter().map(|write| write.copies).max().unwrap_or_default();
    let wait = (copies > 0).then(|| Command::new("WAIT").arg(copies).arg(WAIT.as_millis().to_string()));
    let all: Vec<_> = batch.iter().flat_map(|write| &write.commands).cloned().chain(wait).collect();
    let mut replies = link.call_all(&all, until).await?.into_iter();
    let answers = batch.iter().map(|write| replies.by_ref().take(write.commands.len()).collect()).collect();
    Ok((answers, replies.next()))
}

/// Writes of one batch.
const BATCH: usize = 256;
/// How long a server waits for its replicas.
const WAIT: Duration = Duration::from_millis(100);
