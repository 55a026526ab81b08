//! Files that the configuration names: read without ever waiting for anybody.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The content of a regular file of at most `largest` bytes. Anything else is refused: a pipe waits for somebody who writes,
/// and a device may have no end. It is opened first, without waiting, and then looked at: what is read is what was looked
/// at, whoever puts something else into its place meanwhile.
///
/// # Errors
/// What the system says; [`io::ErrorKind::InvalidInput`] if it is no regular file, [`io::ErrorKind::FileTooLarge`] if it
/// holds more.
pub fn read_regular(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut content = Vec::with_capacity(usize::try_from(found.len().min(largest)).unwrap_or(0));
    // It may grow while it is read.
    file.take(largest.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > largest {
        let what = format!("it is larger than {} MiB", largest >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_regular_file_within_its_bound_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_regular(&path, 5).unwrap(), b"12345");
        assert_eq!(read_regular(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        for odd in [folder.path(), Path::new("/dev/zero"), Path::new("/dev/stdin")] {
            let kind = read_regular(odd, 5).unwrap_err().kind();
            assert!(matches!(kind, io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied), "{odd:?}: {kind}");
        }
        assert_eq!(read_regular(&folder.path().join("none"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_pipe_that_takes_the_place_of_a_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (path, [file, pipe, next]) = (at("named"), ["file", "pipe", "next"].map(at));
        std::fs::write(&file, "12345").unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::fs::hard_link(&file, &path).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let swapping = std::thread::spawn({
            let (over, path) = (Arc::clone(&over), path.clone());
            move || {
                while !over.load(Ordering::Relaxed) {
                    for one in [&pipe, &file] {
                        std::fs::hard_link(one, &next).unwrap();
                        std::fs::rename(&next, &path).unwrap();
                    }
                }
            }
        });
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut seen = [0_u32; 2];
            while seen.iter().any(|count| *count < 5_000) {
                match read_regular(&path, 5) {
                    Ok(content) if content == b"12345" => seen[0] += 1,
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => seen[1] += 1,
                    other => return tell.send(format!("{other:?}")),
                }
            }
            tell.send("both".to_owned())
        });
        let told = told.recv_timeout(Duration::from_secs(30));
        over.store(true, Ordering::Relaxed);
        swapping.join().unwrap();
        assert_eq!(told.expect("it waits for a writer"), "both");
    }
}
