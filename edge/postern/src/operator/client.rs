//! The side of the command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_identity::Keyring;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::proof::{self, FIELD, Target};
use crate::ask::Failed;
use crate::config::Config;

/// A running Postern takes 5 s to read a question and as long to answer it.
const PATIENCE: Duration = Duration::from_secs(12);
/// No answer has more bytes: claims have bounds of their own.
const MOST: usize = 4 << 20;

/// Whoever holds the secret of a configuration, and asks the Postern that runs with it.
#[derive(Debug)]
pub(crate) struct Operator {
    keyring: Arc<Keyring>,
    address: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// The configuration has no secret to prove anything with.
    #[error(
        "no `shared_secret` is configured, so nothing proves to a running Postern who asks: write `shared_secret_file` into the \
         configuration and start Postern with it"
    )]
    NoSecret,
    /// Nothing is there.
    #[error("nothing answers at {0}")]
    Unreachable(String),
    /// Something is there, and its answer did not come, or not whole.
    #[error("{0} was asked, and its answer did not come")]
    Silent(String),
    /// It is not told.
    #[error("{address} answers {status}: {why}")]
    Refused {
        /// Who does not tell.
        address: String,
        /// The status.
        status: u16,
        /// Its words.
        why: String,
    },
    /// The answer is not that of a Postern with this secret.
    #[error(
        "what answers at {0} does not hold the same `shared_secret`, or is of another version: its answer counts for nothing"
    )]
    Strange(String),
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    NoRandomness,
}

impl From<Unanswered> for Failed {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Unreachable(_) => Self::Unreachable(why.to_string()),
            Unanswered::NoSecret
            | Unanswered::Silent(_)
            | Unanswered::Refused { .. }
            | Unanswered::Strange(_)
            | Unanswered::NoRandomness => Self::Problem(why.to_string()),
        }
    }
}

impl Operator {
    /// Whoever may read this configuration, to ask at `address`, or at its `health_check_addr` on this machine.
    pub(crate) fn of(config: &Config, address: Option<&str>) -> Result<Self, Unanswered> {
        if !config.admin.shared_secret {
            return Err(Unanswered::NoSecret);
        }
        let address = address.map_or_else(|| here(config.admin.health).to_string(), str::to_owned);
        Ok(Self { keyring: Arc::clone(&config.edge.keyring), address })
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The answer of whoever proves to hold the secret too.
    pub(crate) async fn ask<A: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<A, Unanswered> {
        let strange = || Unanswered::Strange(self.address.clone());
        // Only who could not be reached has certainly not done what was asked.
        let failed = |error: reqwest::Error| {
            let why =
                if error.is_connect() || error.is_builder() { Unanswered::Unreachable } else { Unanswered::Silent };
            why(self.address.clone())
        };
        let question = serde_json::to_vec(question).map_err(|_| strange())?;
        let target = Target { method: "POST", path };
        let asked = proof::prove(&self.keyring, target, &question, SystemTime::now().into());
        let asked = asked.map_err(|_| Unanswered::NoRandomness)?;
        let client =
            reqwest::Client::builder().no_proxy().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
        let request = client.build().map_err(failed)?.post(format!("http://{}{path}", self.address));
        let mut answer = request.header(FIELD, asked.field).body(asked.body).send().await.map_err(failed)?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST {
                return Err(strange());
            }
        }
        if !status.is_success() {
            let why = String::from_utf8_lossy(&body).trim().chars().take(200).filter(|c| !c.is_control()).collect();
            return Err(Unanswered::Refused { address: self.address.clone(), status: status.as_u16(), why });
        }
        let opened = proof::read(&self.keyring, asked.nonce, &body).ok_or_else(strange)?;
        serde_json::from_slice(&opened).map_err(|_| strange())
    }
}

/// Where what listens there is reached from this machine.
fn here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_asked_here() {
        for (listens, asked) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("127.0.0.1:3", "127.0.0.1:3"),
            ("10.0.0.1:4", "10.0.0.1:4"),
        ] {
            assert_eq!(here(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
