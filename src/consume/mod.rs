//! The machinery behind [`Consumer::run`](crate::Consumer::run): claims ahead, runs handlers, extends leases, settles
//! in batches. [`start`] is the only entry point.

mod batch;
mod chunks;
mod claims;
mod extend;
mod handlers;
mod held;
mod in_flight;
mod options;
mod retention;
mod run_loop;
mod settle;
mod turns;

pub(crate) use chunks::Chunks;
pub(crate) use handlers::{Single, Work};
pub(crate) use in_flight::ChunkLimits;
pub(crate) use options::Options;
pub(crate) use run_loop::{Ended, Job, Stop, start};
