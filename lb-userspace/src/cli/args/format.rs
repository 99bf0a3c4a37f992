//! Forms of output, as `-o` names them.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plain {
    /// For people
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    /// For people, in 100 columns
    Table,
    /// Everything, with exact numbers
    Wide,
    /// The response of the control API
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventsFormat {
    /// One line for each event, for people
    Table,
    /// The events themselves, one JSON object for each line
    Jsonl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReplayFormat {
    /// For people
    Table,
    /// Events and snapshots, one JSON object for each line
    Jsonl,
    /// The summary, or the comparison, as one JSON object
    Json,
}
