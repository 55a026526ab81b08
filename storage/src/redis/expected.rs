//! How many replicas a master is to have, whatever it says of itself just now. One that was demoted a moment ago, or whose
//! connections to its replicas were reset, has none for a while: what it alone then said yes to would be lost with it.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Server;

/// What the Sentinels know of the replicas of a master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// Those that follow it, as far as is known.
    pub(super) up: usize,
    /// Those that do not answer any more.
    pub(super) down: usize,
}

impl Watched {
    /// Of two, whatever asks for more.
    pub(super) fn stricter(self, other: Self) -> Self {
        Self { up: self.up.max(other.up), down: self.down.min(other.down) }
    }
}

/// The replicas that one master was seen with.
#[derive(Debug, Default)]
pub(super) struct Expected {
    of: Option<Server>,
    most: usize,
    /// Of those that the Sentinels call down, how many do not count any more already: the first that they told of, and each that
    /// was taken off since.
    down: Option<usize>,
    /// Servers that Sentinels may yet call down, and that no one waits for: the former master, and what was down under it.
    spare: usize,
    /// As many as were known at the last look.
    known: usize,
    fewer_since: Option<Instant>,
}

/// How many it is to have, and whether it is held to fewer than before since nobody knows what became of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) replicas: usize,
    pub(super) given_up: bool,
}

impl Expected {
    /// `there`: as many as the master itself knows now. Those that are missing count on, also under a master that has just taken
    /// over, until the Sentinels say that they are down, or [`HELD`] is over.
    pub(super) fn of(&mut self, master: &Server, there: usize, watched: Option<Watched>, now: Instant) -> Demand {
        if self.of.as_ref() != Some(master) {
            *self = self.succeeded_by(master);
        }
        let known = there.max(watched.map_or(0, |watched| watched.up));
        if known > self.most {
            // The former master follows as well, or others that nobody knew of.
            self.begin_anew(watched);
        }
        let before = self.most.max(known);
        self.most = before;
        if let Some(Watched { down, .. }) = watched {
            let down = down.saturating_sub(self.spare);
            let taken_off = *self.down.get_or_insert(down);
            self.most = known.max(before.saturating_sub(down.saturating_sub(taken_off)));
            self.down = Some(taken_off.min(down) + (before - self.most));
        }
        if known < std::mem::replace(&mut self.known, known) {
            // Each that goes missing has the whole time.
            self.fewer_since = None;
        }
        let mut given_up = false;
        if self.most == known {
            self.fewer_since = None;
        } else if now.saturating_duration_since(*self.fewer_since.get_or_insert(now)) >= HELD {
            (self.most, self.fewer_since, given_up) = (known, None, true);
            self.begin_anew(watched);
        }
        Demand { replicas: self.most, given_up }
    }

    /// What is down now was no replica of late.
    fn begin_anew(&mut self, watched: Option<Watched>) {
        (self.spare, self.down) = (0, watched.map(|watched| watched.down));
    }

    /// One of its replicas has taken its place: the others are to follow that one, whatever it says of itself until they do.
    fn succeeded_by(&self, master: &Server) -> Self {
        let has_predecessor = self.of.is_some();
        Self {
            of: Some(master.clone()),
            most: self.most.saturating_sub(1),
            down: has_predecessor.then_some(0),
            spare: self.down.unwrap_or(0) + usize::from(has_predecessor),
            ..Self::default()
        }
    }
}

/// Longer than a replica needs to connect anew, or Sentinels to name another master.
pub(super) const HELD: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const NONE_WATCH: Option<Watched> = None;

    fn demand(replicas: usize) -> Demand {
        Demand { replicas, given_up: false }
    }

    #[test]
    fn r_009_a_replica_that_is_missing_counts_until_its_time_is_over() {
        let (mut expected, master, begun) = (Expected::default(), Server::local(1), Instant::now());
        let mut at = |after: Duration, there| expected.of(&master, there, NONE_WATCH, begun + after);
        assert_eq!(at(Duration::ZERO, 2), demand(2));
        assert_eq!(at(Duration::from_secs(1), 0), demand(2));
        assert_eq!(at(HELD, 1), demand(2), "not yet: it was missed after a second");
        assert_eq!(at(HELD + Duration::from_secs(1), 1), Demand { replicas: 1, given_up: true });
        assert_eq!(at(HELD + Duration::from_secs(2), 1), demand(1));
        assert_eq!(at(HELD + Duration::from_secs(3), 2), demand(2), "it is back");
        assert_eq!(at(HELD * 2 + Duration::from_secs(2), 0), demand(2), "and counts as long again");
    }

    #[test]
    fn r_009_one_that_goes_missing_later_counts_as_long() {
        let (mut expected, master, begun) = (Expected::default(), Server::local(1), Instant::now());
        let mut at = |after: Duration, there| expected.of(&master, there, NONE_WATCH, begun + after);
        assert_eq!(at(Duration::ZERO, 2), demand(2));
        assert_eq!(at(Duration::from_secs(1), 1), demand(2));
        assert_eq!(at(HELD, 0), demand(2), "the other connects anew");
        assert_eq!(at(HELD + Duration::from_secs(1), 0), demand(2));
        assert_eq!(at(HELD * 2, 0), Demand { replicas: 0, given_up: true });
    }

    #[test]
    fn r_009_what_sentinels_say_of_replicas_counts_more_than_what_the_master_says() {
        let (mut expected, master, now) = (Expected::default(), Server::local(1), Instant::now());
        let mut said = |there, up, down| expected.of(&master, there, Some(Watched { up, down }), now);
        assert_eq!(said(0, 1, 0), demand(1), "a master that was found only now");
        assert_eq!(said(0, 0, 0), demand(1), "one that follows, but not yet again");
        assert_eq!(said(0, 0, 1), demand(0), "it is down");
        assert_eq!(said(1, 0, 1), demand(1), "the master sees it first");
        assert_eq!(said(0, 0, 1), demand(1), "and it is down no second time");
    }

    #[test]
    fn r_009_a_replica_that_sentinels_call_down_first_counts_until_its_master_misses_it_too() {
        let (mut expected, master, now) = (Expected::default(), Server::local(1), Instant::now());
        let mut said = |there, up, down| expected.of(&master, there, Some(Watched { up, down }), now);
        assert_eq!(said(1, 1, 0), demand(1));
        assert_eq!(said(1, 0, 1), demand(1));
        assert_eq!(said(0, 0, 1), demand(0));
        assert_eq!(said(0, 0, 1), demand(0));
    }

    #[test]
    fn r_009_a_replica_that_has_long_been_down_takes_no_other_ones_place() {
        let (mut expected, master, now) = (Expected::default(), Server::local(1), Instant::now());
        let mut said = |there, up, down| expected.of(&master, there, Some(Watched { up, down }), now);
        assert_eq!(said(2, 2, 1), demand(2));
        assert_eq!(said(0, 0, 1), demand(2), "both connect anew");
        assert_eq!(said(0, 0, 1), demand(2), "look after look");
        assert_eq!(said(1, 1, 2), demand(1), "one of them is down now");
    }

    #[test]
    fn r_009_another_master_is_held_to_the_other_replicas_of_the_one_before() {
        let (mut expected, begun) = (Expected::default(), Instant::now());
        let mut at =
            |master, there, after: Duration| expected.of(&Server::local(master), there, NONE_WATCH, begun + after);
        assert_eq!(at(1, 2, Duration::ZERO), demand(2));
        assert_eq!(at(2, 0, Duration::ZERO), demand(1), "it was one of them itself");
        assert_eq!(at(2, 0, HELD - Duration::from_secs(1)), demand(1));
        assert_eq!(at(2, 0, HELD), Demand { replicas: 0, given_up: true });
        assert_eq!(at(2, 1, HELD), demand(1));
        assert_eq!(at(3, 0, HELD), demand(0), "it was the only one");
    }

    #[test]
    fn r_009_a_former_master_that_is_down_takes_no_replicas_place() {
        let (mut expected, begun) = (Expected::default(), Instant::now());
        let mut said = |master, up, down| expected.of(&Server::local(master), 0, Some(Watched { up, down }), begun);
        assert_eq!(said(1, 2, 1), demand(2), "a third has long been down");
        assert_eq!(said(2, 0, 0), demand(1), "Sentinels begin anew");
        assert_eq!(said(2, 0, 1), demand(1));
        assert_eq!(said(2, 0, 2), demand(1), "the former master, and the one that has long been down");
        assert_eq!(said(2, 0, 3), demand(0), "and now the other replica");
    }

    #[test]
    fn r_009_a_former_master_that_stays_down_takes_the_place_of_no_new_replica() {
        let (mut expected, begun) = (Expected::default(), Instant::now());
        let mut said = |master, up, down| expected.of(&Server::local(master), up, Some(Watched { up, down }), begun);
        assert_eq!(said(1, 1, 0), demand(1));
        assert_eq!((said(2, 0, 0), said(2, 0, 1)), (demand(0), demand(0)));
        assert_eq!(said(2, 1, 1), demand(1));
        assert_eq!(said(2, 0, 1), demand(1), "it connects anew");
        assert_eq!(said(2, 0, 2), demand(0));
    }

    #[test]
    fn r_009_nor_after_the_others_were_given_up() {
        let (mut expected, begun) = (Expected::default(), Instant::now());
        let mut said = |master, up, down, after: u64| {
            let now = begun + Duration::from_secs(after);
            expected.of(&Server::local(master), up, Some(Watched { up, down }), now)
        };
        assert_eq!((said(1, 2, 0, 0), said(2, 0, 0, 1)), (demand(2), demand(1)));
        assert_eq!(said(2, 0, 1, 31), Demand { replicas: 0, given_up: true });
        assert_eq!((said(2, 0, 1, 32), said(2, 1, 1, 40)), (demand(0), demand(1)));
        assert_eq!(said(2, 0, 1, 50), demand(1), "it connects anew");
    }

    #[test]
    fn r_009_a_former_master_that_follows_counts_as_any_other() {
        let (mut expected, begun) = (Expected::default(), Instant::now());
        let mut said = |master, up, down| expected.of(&Server::local(master), 0, Some(Watched { up, down }), begun);
        assert_eq!(said(1, 1, 0), demand(1));
        assert_eq!(said(2, 0, 0), demand(0));
        assert_eq!(said(2, 1, 0), demand(1));
        assert_eq!(said(2, 0, 0), demand(1), "it connects anew");
        assert_eq!(said(2, 0, 1), demand(0), "it is down");
    }
}
