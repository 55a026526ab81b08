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
    let ca = folder.join(super::certificates::CA);
    let ca = shell_word(&ca.to_string_lossy());
    let hello = format!("https://{}.localhost:{port}", hosts::HELLO);
    writeln!(out, "{}", paint.bold("Postern demo"))?;
    writeln!(out, "  Everything is on this machine, in {}", folder.display())?;
    writeln!(out, "\n{}", paint.bold("Who you can be (no password)"))?;
    for user in USERS {
        writeln!(out, "  {:<6} {}", user.id, user.note)?;
    }
    writeln!(out, "\n{}", paint.bold("Where to go"))?;
    for (host, what) in PLACES {
        writeln!(out, "  {}  {what}", paint.link(host, port))?;
    }
    writeln!(out, "\n{}", paint.bold("Trust its certificate (it can vouch for localhost only)"))?;
    writeln!(out, "  browsers  import {ca} as an authority, or accept the warning")?;
    writeln!(
        out,
        "  Debian    sudo cp {ca} /usr/local/share/ca-certificates/postern-demo.crt && sudo update-ca-certificates"
    )?;
    writeln!(out, "  macOS     security add-trusted-cert -k ~/Library/Keychains/login.keychain-db {ca}")?;
    writeln!(out, "\n{}", paint.bold("Three things to try"))?;
    writeln!(out, "  1. Open {} as carol, then follow \"Administrators\".", paint.link(hosts::HELLO, port))?;
    writeln!(out, "  2. Without a session, then with one:")?;
    writeln!(out, "     curl --cacert {ca} -i {hello}/json")?;
    for line in sign_in(&ca, port) {
        writeln!(out, "     {line}")?;
    }
    writeln!(out, "  3. Change {}, and run", super::config::FILE)?;
    writeln!(out, "     postern check {}", shell_word(&folder.join(super::config::FILE).to_string_lossy()))?;
    writeln!(out, "\nCtrl-C ends it. What it made stays in the folder.")
}

/// A sign-in as alice, for a shell.
fn sign_in(ca: &str, port: u16) -> [String; 2] {
    let curl = format!("curl -sL --cacert {ca} -c jar -b jar");
    let url = format!("https://{}.localhost:{port}/json", hosts::HELLO);
    [
        format!("at=$({curl} -o /dev/null -w '%{{url_effective}}' {url})"),
        format!("{curl} --data user=alice \"$at\""),
    ]
}

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
