//! Statements that search: a page of messages or of dead letters, what is known of one message, dead letters by reason.
//! A page looks at no more than 50,000 rows, along an index.

mod dead_letters;
mod find;
mod messages;
mod page;

pub(crate) use self::{
    dead_letters::{WantedLetters, dead_letters, reasons},
    find::find,
    messages::{Wanted, newest_first, oldest_first},
    page::Filter,
};
