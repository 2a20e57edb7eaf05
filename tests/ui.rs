//! What doesn't compile, and what the compiler says to it. Each file under `tests/ui/` is a mistake that
//! somebody makes; beside it stands the compiler's answer, which is reviewed like documentation.
//!
//! To accept new answers: `TRYBUILD=overwrite cargo xtask test ui`, then read them.

use std::process::Command;

/// Answers are compared on this toolchain only: another one words its own part differently.
const TOOLCHAIN: &str = "rustc 1.95.";

#[test]
fn mistakes_do_not_compile_and_the_compiler_says_why() {
    let version = Command::new("rustc")
        .arg("--version")
        .output()
        .expect("rustc starts");
    let version = String::from_utf8_lossy(&version.stdout);
    if !version.starts_with(TOOLCHAIN) {
        eprintln!("skipped: the answers are those of {TOOLCHAIN}x, and this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
