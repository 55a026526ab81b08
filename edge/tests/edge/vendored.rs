//! The vendored libraries are what was published, but for their patches: nothing else hides among their lines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Copies, patches and the sums of what was published.
const VENDOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vendor");

#[test]
fn without_its_patch_each_vendored_library_is_as_published() {
    for name in ["h2", "pingora-core", "pingora-http", "pingora-proxy"] {
        let folder = tempfile::tempdir().unwrap();
        let vendor = Path::new(VENDOR);
        for file in files(&vendor.join(name), Path::new("src")) {
            let copy = folder.path().join(&file);
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(vendor.join(name).join(&file), copy).unwrap();
        }
        let patch = vendor.join(format!("{name}.patch"));
        let git =
            Command::new("git").args(["apply", "--reverse"]).arg(&patch).current_dir(folder.path()).output().unwrap();
        assert!(git.status.success(), "{name}: {}", String::from_utf8_lossy(&git.stderr));

        let of = |file: PathBuf| (sum(&folder.path().join(&file)), file);
        let found = files(folder.path(), Path::new("src")).into_iter().map(of);
        let mut found: BTreeMap<_, _> = found.map(|(sum, file)| (file, sum)).collect();
        let published = fs::read_to_string(vendor.join(format!("{name}.sha256"))).unwrap();
        assert!(published.lines().count() >= 3, "{name}");
        for line in published.lines() {
            let (sum, file) = line.split_once("  ").unwrap();
            assert_eq!(found.remove(Path::new(file)).as_deref(), Some(sum), "{name}: {file}");
        }
        assert!(found.is_empty(), "{name}: not published: {found:?}");
    }
}

/// Every file below `root/folder`, by its path from `root`.
fn files(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap);
    entries
        .flat_map(|entry| {
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() { files(root, &path) } else { vec![path] }
        })
        .collect()
}

fn sum(file: &Path) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &fs::read(file).unwrap()))
}
