//! The condition of a source of discovery.

crate::codes! {
    /// Whether the set of a service's discovery file is in force. Beside `error` in `discovery`.
    DiscoveryCode {
        /// The set in the file is in force.
        Current = "current",
        /// The file does not exist.
        Missing = "missing",
        /// The file cannot be read.
        Unreadable = "unreadable",
        /// Other users may change the file or its folder.
        Untrusted = "untrusted",
        /// The file is too large.
        TooLarge = "too_large",
        /// The file is no JSON document of the right form.
        Broken = "broken",
        /// The document has another schema.
        OtherSchema = "other_schema",
        /// The set does not fit the service or the configuration.
        Unfit = "unfit",
        /// The maps have no space for the set beside the present backends.
        NoSpace = "no_space",
    }
}
