//! The environment: the only file of the product that reads it.

use std::collections::BTreeMap;

use postern_identity::{RandomError, Secret, random};

/// The environment of the process, read once, and what the process makes up where nothing is configured.
#[derive(Debug, Clone)]
pub struct Environment {
    variables: BTreeMap<String, Secret<String>>,
    /// Used where no `shared_secret` is configured: it lasts as long as the process, across reloads (01 §1.7).
    pub(super) shared_secret: Secret<[u8; 32]>,
    /// Used where no `cookie_secret` is configured.
    pub(super) cookie_secret: Secret<[u8; 32]>,
}

impl Environment {
    /// The environment of this process. A variable that is empty counts as unset; one that is not UTF-8 is none of ours.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn read() -> Result<Self, RandomError> {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
        let variables = std::env::vars_os();
        Self::of(variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))))
    }

    /// An environment of exactly these variables.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn of<N: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, RandomError> {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .filter(|(_, value): &(String, String)| !value.is_empty())
            .map(|(name, value)| (name, Secret::new(value)))
            .collect();
        Ok(Self { variables, shared_secret: Secret::new(random()?), cookie_secret: Secret::new(random()?) })
    }

    /// The value of a variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Secret<String>> {
        self.variables.get(name)
    }

    /// Whether the user asked for no colour (<https://no-color.org>).
    #[must_use]
    pub fn no_color(&self) -> bool {
        self.get("NO_COLOR").is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let environment = Environment::of([("ADDRESS", ""), ("SERVICES", "all")]).unwrap();
        assert!(environment.get("ADDRESS").is_none());
        assert_eq!(environment.get("SERVICES").unwrap().expose(), "all");
    }

    #[test]
    fn s_107_variables_never_print() {
        let environment = Environment::of([("SHARED_SECRET", "open sesame")]).unwrap();
        assert!(!format!("{environment:?}").contains("sesame"));
    }
}
