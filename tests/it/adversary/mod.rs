//! Hostile conditions, on a real PostgreSQL.

mod pace;
mod settling;
