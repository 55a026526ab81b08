//! Writes that replicas are to have before anybody hears that they are done.
//!
//! `WAIT` holds up whatever comes behind it on its connection. So one batch is under way at a time: what is asked meanwhile goes
//! together after it, with one `WAIT` for all, and what nobody waits for any more is not sent.

use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
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
        queued.map_err(|refused| {
            let is_full = matches!(refused, TrySendError::Full(_));
            Broken::Lost(if is_full { "too many writes wait for it" } else { GIVEN_UP }.to_owned())
        })?;
        match timeout_at(until, told).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) => Err(Broken::Lost(GIVEN_UP.to_owned())),
            Err(_) => Err(Broken::Silent),
        }
    }
}

impl Write {
    fn size(&self) -> usize {
        self.commands.iter().flat_map(|command| &command.arguments).map(|argument| argument.len()).sum()
    }
}

/// One batch after the other.
async fn write(kept: &Kept, mut writes: mpsc::Receiver<Write>) {
    let mut room = BATCH_BYTES;
    while let Some(first) = writes.recv().await {
        let (mut batch, mut size, mut next) = (Vec::new(), 0, Some(first));
        while let Some(write) = next {
            if !write.tell.is_closed() {
                size += write.size();
                batch.push(write);
            }
            next = if size < room { writes.try_recv().ok() } else { None };
        }
        if batch.is_empty() {
            continue;
        }
        // Whoever has gone meanwhile asks again, if at all.
        match send(kept, &batch).await {
            Ok((replies, confirmed)) => {
                room = room_after(room, size, confirmed_all(&batch, confirmed.as_ref()));
                let mut replies = replies.into_iter();
                for write in batch {
                    let own = replies.by_ref().take(write.commands.len()).chain(confirmed.clone()).collect();
                    let _gone = write.tell.send(Ok(own));
                }
            }
            // Those that came meanwhile may go elsewhere.
            Err(broken) => {
                for write in batch.into_iter().chain(std::iter::from_fn(|| writes.try_recv().ok())) {
                    let _gone = write.tell.send(Err(broken.clone()));
                }
            }
        }
    }
}

/// The answers to all writes of a batch, and that to the `WAIT` for all of them.
async fn send(kept: &Kept, batch: &[Write]) -> Result<(Vec<Reply>, Option<Reply>), Broken> {
    let until = Instant::now() + ATTEMPT;
    let link = kept.link(until).await?;
    let copies = copies(batch);
    let wait = (copies > 0).then(|| Command::new("WAIT").arg(copies).arg(WAIT.as_millis().to_string()));
    let waits = wait.is_some();
    let all: Vec<_> = batch.iter().flat_map(|write| &write.commands).cloned().chain(wait).collect();
    let replies = link.call_all(&all, until).await;
    if matches!(replies, Err(Broken::Silent)) {
        // What comes next would stand behind it.
        link.give_up();
    }
    let mut replies = replies?;
    let confirmed = if waits { replies.pop() } else { None };
    Ok((replies, confirmed))
}

/// How many replicas are to have all of it.
fn copies(batch: &[Write]) -> u32 {
    batch.iter().map(|write| write.copies).max().unwrap_or_default()
}

fn confirmed_all(batch: &[Write], confirmed: Option<&Reply>) -> bool {
    confirmed.is_none_or(|confirmed| confirmed.number().is_some_and(|replicas: u32| replicas >= copies(batch)))
}

/// How large the next batch may be. What replicas did not have in time is asked for again, so they get less at once then.
fn room_after(room: usize, size: usize, confirmed: bool) -> usize {
    let room = if confirmed { room * 2 } else { size.min(room) / 2 };
    room.clamp(LEAST_BATCH_BYTES, BATCH_BYTES)
}

const GIVEN_UP: &str = "the connection was given up";
/// No batch takes more writes once it has so many bytes: replicas are to have it in time.
const BATCH_BYTES: usize = 1024 * 1024;
/// And this few are never too many, so that what is written while replicas are away does not stand in a long line: each batch
/// waits for them.
const LEAST_BATCH_BYTES: usize = 128 * 1024;
/// How long a server waits for its replicas.
const WAIT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_replicas_do_not_have_in_time_comes_in_smaller_pieces_until_they_do() {
        const KIB: usize = 1024;
        let slow_link =
            [(1024, 1100, false, 512), (512, 500, false, 250), (250, 250, true, 500), (800, 900, true, 1024)];
        for (room, size, confirmed, next) in slow_link {
            assert_eq!(room_after(room * KIB, size * KIB, confirmed), next * KIB, "{room} {size} {confirmed}");
        }
        assert_eq!(room_after(BATCH_BYTES, 3 * KIB, false), LEAST_BATCH_BYTES, "a small one says nothing of the link");
        assert_eq!(room_after(LEAST_BATCH_BYTES, KIB, true), 2 * LEAST_BATCH_BYTES);
    }

    #[test]
    fn a_batch_is_confirmed_by_as_many_replicas_as_the_one_of_it_that_wants_most() {
        let write = |copies| Write { commands: Vec::new(), copies, tell: oneshot::channel().0 };
        let batch = [write(0), write(2), write(1)];
        for (reply, all) in [(Reply::Number(2), true), (Reply::Number(1), false), (Reply::Nil, false)] {
            assert_eq!(confirmed_all(&batch, Some(&reply)), all, "{reply:?}");
        }
        assert!(confirmed_all(&[write(0)], None), "nobody was waited for");
    }
}
