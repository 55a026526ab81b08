//! What `docs/reference/problems.md` says of each kind of problem: the page itself is what `postern help CODE` prints.

use postern_policy::document::nearest;

use super::Code;

const PAGE: &str = include_str!("../../../../docs/reference/problems.md");

impl Code {
    /// What this kind means, an example and how to mend it, as Markdown.
    #[must_use]
    pub fn page(self) -> &'static str {
        let heading = format!("\n## {self}\n");
        let section = PAGE.split_once(&heading).map_or("", |(_, rest)| rest);
        section.split("\n## ").next().unwrap_or_default().trim()
    }

    /// The kind of that code: `PST-0204`, `pst-0204`, `0204`.
    ///
    /// # Errors
    /// There is none; the one that was probably meant, if some is near.
    pub fn find(text: &str) -> Result<Self, Option<Self>> {
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.strip_prefix("pst").unwrap_or(&lower).trim_start_matches('-');
        let spelt = Self::ALL.iter().map(|code| (format!("{:04}", *code as u16), *code)).collect::<Vec<_>>();
        if let Some((_, code)) = spelt.iter().find(|(known, _)| *known == format!("{digits:0>4}")) {
            return Ok(*code);
        }
        let near = nearest(digits, spelt.iter().map(|(known, _)| known.as_str()));
        Err(spelt.iter().find(|(known, _)| Some(known.as_str()) == near).map(|(_, code)| *code))
    }

    /// Whether a word of a command line is meant to be a code.
    #[must_use]
    pub fn is_meant(word: &str) -> bool {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits(word) || word.get(..3).is_some_and(|head| head.eq_ignore_ascii_case("pst"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::cli::{Command, Invocation};
    use crate::config::{Colour, Environment, Source, load};

    use super::*;

    #[test]
    fn every_code_has_its_section_and_no_section_is_of_another() {
        let told: Vec<&str> = PAGE.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let known: Vec<String> = Code::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(told, known);
        for code in Code::ALL {
            let (title, meaning) = code.page().split_once("\n\n").unwrap_or_default();
            let plain = title.replacen(title.get(..1).unwrap(), &title.get(..1).unwrap().to_lowercase(), 1);
            assert!([title, &plain].contains(&format!("{}.", code.title()).as_str()), "{code}: {title}");
            let begins = ["Always an error.", "Always a warning.", "An error "];
            assert!(begins.iter().any(|begin| meaning.starts_with(begin)), "{code}: {meaning}");
            let (_, mend) = meaning.rsplit_once("```\n").unwrap_or_else(|| panic!("{code} has no example"));
            assert!(mend.trim().len() > 10, "{code} is not mended");
        }
    }

    #[test]
    fn a_code_is_found_in_any_spelling_and_a_wrong_one_leads_to_the_right_one() {
        for text in ["PST-0204", "pst-0204", "PST0204", "0204", "204", " Pst-0204 "] {
            assert_eq!(Code::find(text), Ok(Code::BadChoice), "{text}");
        }
        assert_eq!(Code::find("PST-0240"), Err(Some(Code::BadChoice)));
        assert_eq!(Code::find("PST-9999"), Err(None));
        assert_eq!(Code::find("pst-"), Err(None));
    }

    /// The blocks of a section: the word after the fence, and what stands inside.
    fn blocks(section: &str) -> Vec<(&str, String)> {
        let mut fences = section.split("```");
        fences.next();
        let inside = fences.step_by(2).filter_map(|block| block.split_once('\n'));
        inside.map(|(kind, text)| (kind, text.to_owned())).collect()
    }

    /// The rest of the file that an example belongs to, without the keys that it gives itself.
    fn completed(example: &str) -> String {
        if example.starts_with("- ") {
            return example.to_owned();
        }
        let key = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
        let own: Vec<String> = example.lines().map(key).collect();
        let rest = "insecure_server: true\nshared_secret_file: secret\ncookie_secret_file: secret\n\
                    authenticate_service_url: https://authenticate.example.com\nidp_provider: oidc\n\
                    idp_provider_url: https://idp.example.com\nidp_client_id: postern\n";
        let kept = rest.lines().filter(|line| !own.contains(&key(line)));
        kept.map(|line| format!("{line}\n")).collect::<String>() + example
    }

    #[test]
    fn every_example_shows_exactly_its_own_code() {
        let mut wrong = String::new();
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        fs::write(here.join("secret"), "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
        for code in Code::ALL {
            let mut asked = None;
            for (kind, text) in blocks(code.page()) {
                match kind.split_once(' ').unwrap_or((kind, "")) {
                    ("text", name) => fs::write(here.join(name), text).unwrap(),
                    ("yaml", _) => {
                        // Files that the example brings along are in the folder.
                        let place = |text: String, name: &str| {
                            text.replace(&format!(": {name}\n"), &format!(": {}\n", here.join(name).display()))
                        };
                        let text = ["secret", "short-secret", "broken.pem"].into_iter().fold(completed(&text), place);
                        fs::write(here.join("config.yaml"), text).unwrap();
                        asked = Some("config.yaml".to_owned());
                    }
                    ("console", _) => {
                        let words = text.split_whitespace().map(Into::into);
                        let Command::Check(check) = Invocation::parse(words).unwrap().command else { panic!("{text}") };
                        asked = Some(check.file.display().to_string());
                    }
                    _ => panic!("{code}: a block of the kind {kind:?}"),
                }
            }
            let file = here.join(asked.unwrap_or_else(|| panic!("{code} has no example")));
            let loaded =
                load(&Source { file: Some(file), lenient: false }, &Environment::of::<&str, &str>([]).unwrap());
            let found: Vec<Code> = loaded.problems.iter().map(|problem| problem.code).collect();
            if found.is_empty() || found.iter().any(|found| found != code) {
                wrong += &format!("{code}:\n{}", loaded.problems.to_human(Colour::Plain));
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    }
}
