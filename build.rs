//! Pins what the `sqlx::query!` macros read from the environment.
//!
//! They look for `DATABASE_URL` (also in a `.env` of any parent folder) before they look at `.sqlx`,
//! so an application's own `DATABASE_URL` would reach our statements and break the build. What a
//! build script sets for rustc comes first.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-changed=.sqlx");
    println!("cargo:rerun-if-env-changed=PGQRS_PREPARE_URL");
    match env::var("PGQRS_PREPARE_URL") {
        // `cargo xtask prepare`: check each statement against a live database and write the results to `.sqlx`.
        Ok(url) if !url.is_empty() => {
            println!("cargo:rustc-env=SQLX_OFFLINE=false");
            println!("cargo:rustc-env=DATABASE_URL={url}");
        }
        // All other builds. Leave `DATABASE_URL` alone: cargo would set an empty one when tests run.
        _ => {
            let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for build scripts");
            println!("cargo:rustc-env=SQLX_OFFLINE=true");
            println!("cargo:rustc-env=SQLX_OFFLINE_DIR={root}/.sqlx");
        }
    }
}
