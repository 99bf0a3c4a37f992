//! The contract of all JSON that the command line prints: a code beside each text for people.

mod codes;
mod texts;
