//! One line of the changelog: a fact, or a sign of life.

use postern_identity::{SessionHandle, Timestamp};

use crate::invalidation::Fact;
use crate::record::Key;
use crate::redis::{Command, Reply};

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// What happened.
    Fact(Fact),
    /// Somebody who writes is there, and what they wrote before has been copied.
    Heartbeat,
}

/// `k`: which kind; `i`: of what; `n`: a generation, or a time in milliseconds.
const KIND: &str = "k";
const ID: &str = "i";
const NUMBER: &str = "n";

impl Entry {
    /// The fields of the line, appended to a command.
    pub(super) fn write(self, command: Command) -> Command {
        let id = |command: Command, kind, id: &[u8]| command.arg(KIND).arg(kind).arg(ID).arg(id);
        match self {
            Self::Heartbeat => command.arg(KIND).arg("h"),
            Self::Fact(Fact::Created) => command.arg(KIND).arg("c"),
            Self::Fact(Fact::Revoked(handle)) => id(command, "r", handle.as_bytes()),
            Self::Fact(Fact::Rewritten(handle, generation)) => {
                id(command, "w", handle.as_bytes()).arg(NUMBER).arg(generation)
            }
            Self::Fact(Fact::OwnerRevoked(owner, not_before)) => {
                id(command, "o", &owner).arg(NUMBER).arg(not_before.as_millis())
            }
        }
    }

    /// The line with these fields; `None` for one that only a newer version understands.
    pub(super) fn read(fields: &[Reply]) -> Option<Self> {
        let find = |name: &str| {
            let pairs = fields.chunks_exact(2);
            pairs.filter_map(|pair| Some((pair.first()?.text()?, pair.get(1)?))).find(|(own, _)| *own == name)
        };
        let id = || find(ID).and_then(|(_, value)| Key::try_from(value.bytes()?).ok());
        let number = || find(NUMBER).and_then(|(_, value)| value.number::<i64>());
        Some(match find(KIND)?.1.text()? {
            "h" => Self::Heartbeat,
            "c" => Self::Fact(Fact::Created),
            "r" => Self::Fact(Fact::Revoked(SessionHandle::from_bytes(id()?))),
            "w" => Self::Fact(Fact::Rewritten(SessionHandle::from_bytes(id()?), u64::try_from(number()?).ok()?)),
            "o" => Self::Fact(Fact::OwnerRevoked(id()?, Timestamp::from_millis(number()?))),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let handle = SessionHandle::from_bytes([0xfe; 32]);
        let facts = [
            Fact::Created,
            Fact::Revoked(handle),
            Fact::Rewritten(handle, 7),
            Fact::OwnerRevoked([0x7b; 32], Timestamp::from_millis(-5)),
        ];
        for entry in facts.map(Entry::Fact).into_iter().chain([Entry::Heartbeat]) {
            let written = entry.write(Command::new("XADD"));
            let fields: Vec<_> = written.arguments().iter().cloned().map(Reply::Bytes).collect();
            assert_eq!(Entry::read(&fields), Some(entry));
        }
    }

    #[test]
    fn r_023_a_line_of_a_newer_version_is_skipped() {
        let text = |text: &'static str| Reply::Bytes(text.into());
        for fields in
            [vec![], vec![text("k")], vec![text("k"), text("?")], vec![text("k"), text("r"), text("i"), text("short")]]
        {
            assert_eq!(Entry::read(&fields), None, "{fields:?}");
        }
    }
}
