//! How values that processes leave for each other are named and sealed.

use postern_identity::{Purpose, SecretIndex, Timestamp};
use prost::Message;
use zeroize::{Zeroize as _, Zeroizing};

use super::{FORMAT, Key, Kind, MAX_RECORD, Seal};
use crate::StorageError;
use crate::deposits::Deposit;

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Plain {
    /// Whatever a store says of it, it is good until then.
    #[prost(int64, tag = "1")]
    until: i64,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plain([redacted])")
    }
}

impl Seal {
    /// Every name of something in the store and the secret that makes it, that in force first.
    pub(crate) fn deposit_names(&self, name: &[&str]) -> Vec<(SecretIndex, Key)> {
        let parts: Vec<_> = std::iter::once("deposit").chain(name.iter().copied()).map(str::as_bytes).collect();
        self.keyring.secrets().zip(self.keyring.macs(Purpose::StoreId, &parts)).collect()
    }

    /// Seals a value to its place.
    pub(crate) fn deposit(
        &self,
        (kind, key): (Deposit, &Key),
        secret: SecretIndex,
        until: Timestamp,
        value: &[u8],
    ) -> Result<Vec<u8>, StorageError> {
        let mut record = Plain { until: until.as_millis(), value: value.to_vec() };
        let plain = Zeroizing::new(record.encode_to_vec());
        record.value.zeroize();
        if plain.len() > MAX_RECORD {
            return Err(StorageError::unavailable("a record is too large to be kept"));
        }
        let sealed = self.keyring.seal_by(secret, Purpose::StoreSeal, &place(kind, key), &plain);
        sealed.map_err(|error| StorageError::unavailable(error.to_string()))
    }

    /// Opens what [`deposit`](Self::deposit) sealed, and says until when it is good.
    pub(crate) fn open_deposit(
        &self,
        (kind, key): (Deposit, &Key),
        sealed: &[u8],
    ) -> Option<(Timestamp, Zeroizing<Vec<u8>>)> {
        let plain = self.keyring.open(Purpose::StoreSeal, &place(kind, key), sealed).map(Zeroizing::new)?;
        let Plain { until, value } = Plain::decode(plain.as_slice()).ok()?;
        Some((Timestamp::from_millis(until), Zeroizing::new(value)))
    }
}

fn place(kind: Deposit, key: &Key) -> Vec<u8> {
    let head = [Kind::Deposit as u8, kind.letter() as u8];
    [&head[..], &FORMAT.to_be_bytes(), key].concat()
}
