//! Which slot of a cluster a key belongs to.

/// Slots of a cluster (Redis Cluster specification, "Key distribution model").
pub(super) const SLOTS: usize = 16_384;

/// The slot of a key: that of its hash tag, the text between the first `{` and the next `}`, if there is one.
pub(super) fn slot(key: &str) -> u16 {
    fred::util::redis_keyslot(key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_tag_alone_decides() {
        // `CLUSTER KEYSLOT` of a real server.
        assert_eq!(slot("123456789"), 12_739);
        assert_eq!(slot("s:{abc}"), slot("t:{abc}"));
        assert_eq!(slot("s:{abc}"), slot("abc"));
        assert!(usize::from(slot("s:{}abc")) < SLOTS);
    }
}
