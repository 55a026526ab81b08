//! `postern version`, `postern help CODE`, and what a bare `postern` says.

use std::io::Write as _;

use serde_json::json;

use crate::cli::{self, Exit, Format};
use crate::config::Code;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints the version.
#[must_use]
pub(crate) fn version(asked: &cli::Version) -> Exit {
    print(&match asked.format {
        Format::Human => format!("postern {VERSION}\n"),
        Format::Json => format!("{}\n", json!({ "name": "postern", "version": VERSION })),
    })
}

/// Prints what this is and what to do next.
#[must_use]
pub(crate) fn status() -> Exit {
    print(&format!(
        "postern {VERSION}: an identity-aware access proxy. Nothing was asked of it, and nothing runs.\n\n\
         Next steps:\n  \
         postern demo                        see it work, with users, sign-in and a sample application\n  \
         postern check config.yaml           say what is wrong with a configuration, and what to write\n  \
         postern run --config config.yaml    run it\n\n\
         postern help                        all commands\n"
    ))
}

/// Prints what a kind of problem means and how to mend it.
#[must_use]
pub(crate) fn problem(code: &str) -> Exit {
    match Code::find(code) {
        Ok(code) => print(&format!("{code}\n\n{}\n", code.page())),
        Err(near) => {
            let near = near.map_or_else(
                || "`postern check FILE` prints the code of each problem that it finds".to_owned(),
                |near| format!("did you mean {near}, {}?", near.title()),
            );
            crate::tell(&format!("there is no problem {code}; {near}"));
            Exit::Usage
        }
    }
}

fn print(text: &str) -> Exit {
    // A reader that has gone away has seen enough.
    let _closed = std::io::stdout().lock().write_all(text.as_bytes());
    Exit::Ok
}
