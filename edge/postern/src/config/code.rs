//! The kinds of problem, each with a number that never changes its meaning.

macro_rules! codes {
    ($($variant:ident = $number:literal $title:literal,)*) => {
        /// The kind of a problem; its text is `PST-` and four digits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "each variant is its own title, see `title`")]
        pub enum Code { $($variant = $number,)* }

        impl Code {
            /// Every kind, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What this kind is about.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    FileUnreadable = 1 "the configuration file cannot be read",
    Syntax = 2 "the text is not valid YAML, JSON or TOML",
    NotAMap = 3 "the document is not a map of keys",
    FileType = 4 "the file has a type that is not read",
    WrittenTwice = 5 "the same key in two spellings",
    UnknownKey = 101 "a key that does not exist",
    RemovedKey = 102 "a key that was removed",
    NotYet = 103 "a key or value that is not supported yet",
    NoEffect = 104 "a key that has no effect here",
    UnknownFlag = 105 "a runtime flag that does not exist",
    UnknownField = 106 "a log field that does not exist",
    WrongType = 201 "a value of the wrong type",
    BadDuration = 202 "a duration that cannot be read",
    TinyDuration = 203 "a duration so small that a unit is probably missing",
    BadChoice = 204 "a value that is not among the choices",
    BadAddress = 205 "an address that cannot be listened on",
    BadUrl = 206 "a URL that cannot be used",
    BadBase64 = 207 "a value that is not base64",
    BadHeader = 208 "a header name or value that cannot be sent",
    BadRegex = 209 "a regular expression that cannot be compiled",
    ReferencedFile = 210 "a named file that cannot be read",
    MissingKey = 211 "a key that must be there",
    Conflict = 212 "keys that exclude each other",
    OutOfRange = 213 "a number out of its range",
    BadHost = 214 "a host name that cannot be",
    ReadOtherwise = 215 "a value that is read as another one than it looks like",
    BadSecret = 301 "a secret that is not what it must be",
    RandomSecret = 302 "a secret that is made anew at each start",
    InlineSecret = 303 "a secret that stands in the file itself",
    BadCertificate = 304 "a certificate or its key that cannot be used",
    NoCertificate = 305 "no certificate is configured",
    BadSigningKey = 306 "a signing key that cannot be used",
    SharedCookie = 307 "a session cookie that several hosts receive",
    BadCookie = 308 "a cookie setting that cannot be used",
    BadService = 401 "a list of services that cannot be run",
    NoAuthenticate = 402 "where people sign in is not said",
    NoProvider = 403 "who vouches for people is not said",
    BadStorage = 501 "a store that cannot be used",
    BadFrom = 601 "a `from` that cannot be matched",
    BadTo = 602 "a `to` that cannot be dialled",
    BadTarget = 603 "a route that leads nowhere, or to a place that cannot be",
    DuplicateRoute = 604 "two routes of the same identity",
    ReservedName = 605 "a header that only Postern may set",
    ReservedPath = 606 "a path that belongs to Postern itself",
    BadAccess = 607 "access keys that contradict each other",
    BadPolicy = 701 "a policy that cannot be read",
    OddPolicy = 702 "a policy that probably means something else",
    HiddenRoute = 801 "a route that an earlier one hides",
    OpenPrefix = 802 "a prefix that also covers longer names",
    WideWildcard = 803 "a wildcard that covers several labels",
    PlainIdentity = 804 "identity headers over a connection that is not encrypted",
    NobodyPasses = 805 "a route that lets nobody pass",
    SignInHost = 806 "a route on the host where people sign in",
    CostlyRegex = 807 "a regular expression that can cost much",
    UnverifiedUpstream = 808 "an upstream whose certificate is not looked at",
    NoCookieThere = 809 "a host of `depends_on` that gets no cookie",
    BadTest = 901 "a test that cannot be read",
    FailedTest = 902 "a test that fails",
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PST-{:04}", *self as u16)
    }
}
