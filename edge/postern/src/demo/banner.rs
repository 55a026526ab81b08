//! What `postern demo` prints: who one can be, where to go, and three things to try.

use std::fmt::{self, Write as _};
use std::path::Path;

use super::hosts;
use super::idp::users::USERS;

/// The text; with `colour` for a terminal that shows it.
pub(super) fn text(folder: &Path, port: u16, colour: bool) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _written = write(&mut text, folder, port, Paint(colour));
    text
}

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn bold(self, text: &str) -> String {
        if self.0 { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn link(self, host: &str, port: u16) -> String {
        let url = format!("https://{host}.localhost:{port}");
        if self.0 { format!("\u{1b}[36m{url}\u{1b}[0m") } else { url }
    }
}

fn write(out: &mut String, folder: &Path, port: u16, paint: Paint) -> fmt::Result {
    let ca = shell_word(&folder.join(super::certificates::CA).to_string_lossy());
    writeln!(out, "{}\n  Everything is on this machine, in {}", paint.bold("Postern demo"), folder.display())?;
    writeln!(out, "\n{}", paint.bold("Who you can be (no password)"))?;
    for user in USERS {
        writeln!(out, "  {:<7}{}", user.id, user.note)?;
    }
    writeln!(out, "\n{}", paint.bold("Where to go"))?;
    for (host, what) in PLACES {
        let gap = " ".repeat(WIDEST.saturating_sub(host.len()));
        writeln!(out, "  {}{gap}  {what}", paint.link(host, port))?;
    }
    writeln!(out, "\n{}", paint.bold("Trust its certificate (it can vouch for localhost only)"))?;
    writeln!(out, "  in a browser, import {ca} as an authority; or accept the warning")?;
    writeln!(out, "\n{}", paint.bold("Three things to try"))?;
    writeln!(out, "  1. Open {} as carol, then follow \"Administrators\".", paint.link(hosts::HELLO, port))?;
    writeln!(out, "  2. Open {}: no second sign-in. Sign out, and reload the first.", paint.link(hosts::WS, port))?;
    writeln!(out, "  3. In a shell, first without a session, then as alice:")?;
    for line in curl(folder, port) {
        writeln!(out, "       {line}")?;
    }
    writeln!(out, "\nCtrl-C ends it. What it made stays in the folder.")
}

/// A request without a session, and a sign-in as alice, for a shell.
fn curl(folder: &Path, port: u16) -> [String; 4] {
    let url = format!("https://{}.localhost:{port}/json", hosts::HELLO);
    let curl = "curl -sL --cacert ca.pem -c jar -b jar";
    [
        format!("cd {}", shell_word(&folder.to_string_lossy())),
        format!("curl --cacert ca.pem -i {url}"),
        format!("at=$({curl} -o /dev/null -w '%{{url_effective}}' {url})"),
        format!("{curl} --data user=alice \"$at\""),
    ]
}

/// The longest name among [`PLACES`].
const WIDEST: usize = 11;

const PLACES: [(&str, &str); 7] = [
    (hosts::HELLO, "anybody of the company"),
    (hosts::PUBLIC, "everybody"),
    (hosts::ADMIN, "the group admins"),
    (hosts::ENGINEERING, "two groups; a deny rule closes /closed"),
    (hosts::WS, "WebSockets"),
    (hosts::GO, "a redirect"),
    (hosts::STATUS, "a fixed answer"),
];

/// A word that a POSIX shell takes as it is.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_names_everybody_and_every_place() {
        let text = text(Path::new("/home/ann/it's here"), 9443, false);
        for part in
            ["alice", "bob", "carol", "dave", "https://admin.localhost:9443", "'/home/ann/it'\\''s here/ca.pem'"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }
}
