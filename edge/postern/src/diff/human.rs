//! A comparison for people to read.

use std::fmt::{self, Write as _};

use super::compare::{Change, Direction, Position};
use super::routes::RouteChange;
use super::{Comparison, Side};
use crate::ask::{self, Page};
use crate::config::Colour;
use crate::probe::Outcome;

/// Of subjects to whom the same happens at one address, so many are named.
const NAMED: usize = 6;

/// Changes of one address from one verdict to another.
struct Group<'a> {
    what: String,
    of: Vec<&'a Change>,
}

impl Comparison<'_> {
    /// Routes first, then whose access changes.
    #[must_use]
    pub fn to_human(&self, colour: Colour) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _infallible = self.write(&mut out, Page(colour));
        out
    }

    fn write(&self, out: &mut String, page: Page) -> fmt::Result {
        self.write_routes(out, page)?;
        for direction in Direction::ALL {
            let changes = self.access.changes.iter().filter(|change| change.direction() == direction);
            self.write_direction(out, page, direction, &changes.collect::<Vec<_>>())?;
        }
        self.write_end(out, page)
    }

    fn write_routes(&self, out: &mut String, page: Page) -> fmt::Result {
        if self.routes.is_empty() {
            return writeln!(out, "no route was added, removed or changed");
        }
        writeln!(out, "{}", page.bold("routes"))?;
        let [old, new] = &self.sides;
        let place = |side: &Side<'_>, at: usize| side.place(at).unwrap_or_default();
        let name = |side: &Side<'_>, at: usize| side.route(at).map(ask::matcher).unwrap_or_default();
        let rows = self.routes.iter().map(|change| match change {
            RouteChange::Added(at) => vec![page.green("+ added"), name(new, *at), place(new, *at)],
            RouteChange::Removed(at) => vec![page.red("- removed"), name(old, *at), place(old, *at)],
            RouteChange::Changed(before, after, what) => {
                let (was, is) = (name(old, *before), name(new, *after));
                let name = if was == is { is } else { format!("{was} is {is}") };
                let places = format!("{} {}", place(old, *before), place(new, *after));
                vec!["~ changed".to_owned(), name, places.trim().to_owned(), what.join(", ")]
            }
        });
        page.columns(out, &rows.collect::<Vec<_>>())
    }

    fn write_direction(&self, out: &mut String, page: Page, direction: Direction, all: &[&Change]) -> fmt::Result {
        if all.is_empty() {
            return Ok(());
        }
        let heading = match direction {
            Direction::Gains => page.green("gains"),
            Direction::Loses => page.red("loses"),
            Direction::Moves => page.bold("moves"),
        };
        writeln!(out, "\n{heading}")?;
        for Group { what, of } in self.groups(all, page) {
            writeln!(out, "  {what}")?;
            let mut words: Vec<_> = of.iter().map(|change| change.scenario.words(&self.usual)).collect();
            words.dedup();
            for subject in words.iter().take(NAMED) {
                writeln!(out, "    {subject}")?;
            }
            if words.len() > NAMED {
                writeln!(out, "    and {} more, which --format json lists", words.len() - NAMED)?;
            }
        }
        Ok(())
    }

    fn groups<'a>(&self, all: &[&'a Change], page: Page) -> Vec<Group<'a>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        for change in all {
            let address = format!("{}{}", change.address.authority(), change.address.target());
            let (before, after) = (self.words(0, &change.before, change), self.words(1, &change.after, change));
            let request = page.bold(&match change.address.tunnel() {
                Some(carries) => format!("{} {address}", carries.method()),
                None => format!("{} {address}", change.scenario.method_words()),
            });
            let what = format!("{request}: {before} -> {after}");
            match groups.iter_mut().find(|group| group.what == what) {
                Some(group) => group.of.push(change),
                None => groups.push(Group { what, of: vec![change] }),
            }
        }
        groups
    }

    /// What comes of a request on one side; where it leads too, if it leads elsewhere on the other one.
    fn words(&self, side: usize, position: &Position, change: &Change) -> String {
        let both = change.before.outcome == change.after.outcome;
        let word = match position.outcome {
            Outcome::Allowed => "allowed".to_owned(),
            Outcome::Answered => format!("answered {}", position.status.unwrap_or_default()),
            Outcome::SignIn => "sign in first".to_owned(),
            Outcome::NotFound => "no route".to_owned(),
            Outcome::Refused => format!("refused {} {}", position.status.unwrap_or_default(), position.reason),
        };
        let route = self.sides.get(side).zip(position.route).and_then(|(side, at)| side.route(at));
        match route.filter(|_| both && matches!(position.outcome, Outcome::Allowed | Outcome::Answered)) {
            Some(route) => format!("{word} by {} to {}", ask::matcher(route), ask::target(route).join(" or ")),
            None if both && position.outcome == Outcome::SignIn => format!("{word}{}", self.provider(side, position)),
            None => route.filter(|_| both).map_or(word.clone(), |route| format!("{word} by {}", ask::matcher(route))),
        }
    }

    fn provider(&self, side: usize, position: &Position) -> String {
        let route = self.sides.get(side).zip(position.route).and_then(|(side, at)| side.route(at));
        let words = route.map(|route| format!(" for {}, at its provider", ask::matcher(route)));
        words.unwrap_or_default()
    }

    fn write_end(&self, out: &mut String, page: Page) -> fmt::Result {
        let compared = &self.access.compared;
        writeln!(out)?;
        if self.access.changes.is_empty() {
            writeln!(out, "{}", page.bold("no access changes"))?;
        }
        writeln!(
            out,
            "compared {} {} in {} combinations of who asks, how, from where and when",
            compared.addresses,
            if compared.addresses == 1 { "address" } else { "addresses" },
            compared.combinations
        )?;
        for (side, unmet) in self.sides.iter().zip(&compared.unmet) {
            for at in unmet {
                let name = side.route(*at).map(ask::matcher).unwrap_or_default();
                let place = side.place(*at).map(|place| format!(" ({place})")).unwrap_or_default();
                writeln!(
                    out,
                    "no request was found for {name}{place}: other routes take what it matches, or name one with --url"
                )?;
            }
        }
        for left in self.access.left_out() {
            writeln!(out, "{}: {left}", page.bold("not all was compared"))?;
        }
        Ok(())
    }
}
