//! `postern config show` and `postern schema`: a configuration as it is understood, without secrets, and what may stand in one.

use std::io::Write as _;

use crate::ask::{self, Failed};
use crate::check;
use crate::cli::{self, Exit, Format, Language};
use crate::config::{self, Keys, Loaded, Source};

/// Prints what a file holds.
#[must_use]
pub(crate) fn show(asked: &cli::Show) -> Exit {
    ask::answered(run(asked))
}

/// Prints what a file may hold.
#[must_use]
pub(crate) fn schema() -> Exit {
    ask::print(Format::Json, |_| String::new(), config::schema);
    Exit::Ok
}

fn run(asked: &cli::Show) -> Result<Exit, Failed> {
    let environment = check::environment().map_err(|_| Failed::Told)?;
    let source = Source { file: Some(asked.file.clone()), lenient: asked.lenient };
    let loaded = config::load(&source, &environment);
    if loaded.config.is_none() {
        return Err(ask::refused(&loaded.problems, &environment));
    }
    // A reader that has gone away has seen enough.
    let _closed = std::io::stdout().lock().write_all(text(&loaded, asked).as_bytes());
    Ok(Exit::Ok)
}

fn text(loaded: &Loaded, asked: &cli::Show) -> String {
    let keys = config::effective(loaded, if asked.effective { Keys::All } else { Keys::Written });
    let file = asked.file.display().to_string();
    match asked.format {
        Language::Yaml => config::yaml(&keys, asked.origin.then_some(&file)),
        Language::Json if asked.origin => format!("{:#}\n", config::listed(&keys, Some(&file))),
        Language::Json => format!("{:#}\n", config::plain(&keys)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::{Command, Invocation, OfConfig};
    use crate::config::{Environment, load_text};

    const GUIDE: &str = "../../docs/guides/inspect.md";

    #[test]
    fn the_guide_shows_what_is_printed() {
        let page = fs::read_to_string(GUIDE).unwrap();
        let (_, file) = page.split_once("\n```yaml\n").unwrap();
        let (file, _) = file.split_once("```\n").unwrap();
        let environment = Environment::of([("ADDRESS", ":8080")]).unwrap();
        let loaded = load_text(Some("config.yaml"), file, false, &environment);
        assert!(loaded.config.is_some(), "{:?}", loaded.problems);
        let blocks = page.split("```console\n$ ").skip(1).filter_map(|rest| rest.split("```\n").next());
        let blocks: Vec<_> = blocks.filter(|block| block.starts_with("ADDRESS=:8080 postern config show ")).collect();
        assert!(!blocks.is_empty());
        for block in blocks {
            let (line, output) = block.split_once('\n').unwrap();
            let (line, last) = line.split_once(" | ").unwrap_or((line, "tail -n +1"));
            let words = line.split_whitespace().skip(1).map(Into::into);
            let Command::Config(OfConfig::Show(asked)) = Invocation::parse(words).unwrap().command else { panic!() };
            let told = text(&loaded, &asked);
            let shown: String = match last.split_once("head -n ") {
                Some((_, lines)) => told.lines().take(lines.parse().unwrap()).map(|line| format!("{line}\n")).collect(),
                None => told,
            };
            assert_eq!(output, shown, "{line}\n{shown}");
        }
    }
}
