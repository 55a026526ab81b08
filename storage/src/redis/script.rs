//! A script that runs inside of the server, as one step.

use std::fmt::Write as _;

use super::Command;

/// A script. It is sent by its digest; a server that does not know it yet is sent the text.
#[derive(Debug)]
pub(crate) struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    /// The script of that text.
    pub(crate) fn new(text: &'static str) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let hex = digest.as_ref().iter().fold(String::with_capacity(40), |mut hex, byte| {
            let _infallible = write!(hex, "{byte:02x}");
            hex
        });
        Self { text, digest: hex }
    }

    /// The command that runs it, known to the server or not.
    pub(super) fn command(&self, known: bool, keys: &[String], arguments: &Command) -> Command {
        let script =
            if known { Command::new("EVALSHA").arg(self.digest.as_str()) } else { Command::new("EVAL").arg(self.text) };
        let mut command = script.arg(keys.len()).args(keys.iter().map(String::as_str));
        command.arguments.extend(arguments.arguments.iter().cloned());
        command
    }
}
