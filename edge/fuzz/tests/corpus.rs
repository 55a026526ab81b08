//! The kept inputs, put to the targets without libFuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use postern_fuzz::TARGETS;

fn files(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", folder.as_ref().display()));
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

#[test]
fn every_kept_input_holds_what_its_target_says() {
    for (name, target) in TARGETS {
        let kept = files(format!("corpus/{name}"));
        assert!(kept.len() >= 8, "{name}");
        for path in kept {
            let bytes = fs::read(&path).unwrap();
            if std::panic::catch_unwind(|| target(&bytes)).is_err() {
                panic!("{name}: {}", path.display());
            }
        }
    }
}

#[test]
fn every_configuration_of_the_tests_is_an_input_too() {
    let (_, config) = TARGETS[0];
    for path in [files("../postern/tests/configs"), files("../postern/tests/problems")].concat() {
        config(&fs::read(path).unwrap());
    }
}
