//! What came back to the client.

/// An answer, or what there was of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Got {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: String,
    /// It ended before its end.
    pub(super) short: bool,
}

impl Got {
    /// All values of that field.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// All that came of a case.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    pub(super) answers: Vec<Got>,
    /// HTTP/1: the edge closed. HTTP/2: a stream or connection error came in place of an answer.
    pub(super) closed: bool,
    /// HTTP/1: bytes that are no answer.
    pub(super) rest: String,
    pub(super) tail: String,
    /// The fence after it was answered.
    pub(super) usable: bool,
}
