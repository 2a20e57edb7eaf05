//! Hostile conditions: locks, small pools, slow links, servers that are away, handlers that break, runtimes that end.

mod abandoned;
mod connections;
mod edges;
mod pace;
mod reasons;
mod settling;
