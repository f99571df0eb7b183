//! API keys.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use warpseek_hub::http::Secret;

/// Digests of the keys that a request may carry.
#[derive(Debug)]
pub(super) struct Keys(Vec<[u8; 32]>);

impl Keys {
    pub(super) fn new(keys: &[Secret]) -> Self {
        Self(keys.iter().map(|key| digest(key.reveal())).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if `given` is one of the keys. The time it takes says nothing about the keys.
    pub(super) fn contains(&self, given: &str) -> bool {
        let given = digest(given);
        self.0.iter().fold(Choice::from(0), |found, key| found | given.ct_eq(key)).into()
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_only_as_a_whole() {
        let keys = Keys::new(&["one", "two"].map(Secret::new));
        assert!(keys.contains("one") && keys.contains("two"));
        assert!(!keys.contains("on") && !keys.contains("") && !keys.contains("one "));
    }
}
