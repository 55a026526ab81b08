//! What servers need to speak TLS.

use std::path::{Path, PathBuf};

/// Files of a certificate that is good for servers and clients alike, since members of a cluster are both to each other; of its key;
/// and of the authority whose certificates others have to show.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    chain: PathBuf,
    key: PathBuf,
    roots: PathBuf,
}

impl TlsFiles {
    /// Writes them into a folder, in PEM.
    #[must_use]
    pub fn write(folder: &Path, (chain, key): (&[u8], &[u8]), roots: &[u8]) -> Self {
        let file = |name: &str, content: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        Self { chain: file("server.pem", chain), key: file("server.key", key), roots: file("ca.pem", roots) }
    }

    /// Has a server listen for TLS on a port beside its other one; whether clients have to show a certificate is `asks`.
    #[must_use]
    pub fn options(&self, port: u16, asks: &str) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let options = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", path(&self.chain)),
            ("--tls-key-file", path(&self.key)),
            ("--tls-ca-cert-file", path(&self.roots)),
            ("--tls-auth-clients", asks.to_owned()),
        ];
        options.into_iter().flat_map(|(key, value)| [key.to_owned(), value]).collect()
    }

    /// The same; and it speaks TLS to the servers that it replicates, or watches.
    pub(crate) fn options_among_servers(&self, port: u16) -> Vec<String> {
        [self.options(port, "yes"), ["--tls-replication", "yes"].map(str::to_owned).to_vec()].concat()
    }
}
