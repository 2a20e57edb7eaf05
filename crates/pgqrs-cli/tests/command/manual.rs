//! `completions`, `man`, `grants`, `--help`, `--version`: what needs no database.

use crate::support::{Run, pgqrs};

async fn print(arguments: &[&str]) -> String {
    let output = pgqrs(arguments).output().await.expect("it was built");
    Run::from(output).done()
}

#[tokio::test]
async fn completions_know_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = print(&["completions", shell]).await;
        assert!(script.contains("purge-archive"), "{shell}: {script}");
    }
}

#[tokio::test]
async fn bash_accepts_the_completions_and_completes_with_them() {
    let script = print(&["completions", "bash"]).await;
    let ask = "COMP_WORDS=(pgqrs queue pur); COMP_CWORD=2; _pgqrs pgqrs pur queue; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = tokio::process::Command::new("bash")
        .args(["-c", &format!("{script}\n{ask}")])
        .output()
        .await
        .expect("bash runs");
    let run = Run::from(output).done();
    assert_eq!(run, "purge\npurge-archive\n");
}

#[tokio::test]
async fn the_manual_has_a_page_for_each_command() {
    let page = print(&["man"]).await;
    assert!(page.contains(".SH SUBCOMMANDS"), "{page}");
    assert!(page.contains("Exit codes:"), "{page}");
    let page = print(&["man", "queue", "purge"]).await;
    assert!(page.contains("dry\\-run"), "{page}");

    let folder = std::env::temp_dir().join(format!("pgqrs-man-{}", std::process::id()));
    let dir = folder.to_str().expect("it is UTF-8");
    print(&["man", "--dir", dir]).await;
    for page in ["pgqrs.1", "pgqrs-send.1", "pgqrs-queue-purge.1"] {
        assert!(folder.join(page).exists(), "{page}");
    }
    std::fs::remove_dir_all(&folder).expect("it is there");

    let unknown = pgqrs(&["man", "nope"])
        .output()
        .await
        .expect("it was built");
    let error = Run::from(unknown).fails(2);
    assert!(error.contains("there is no command `nope`"), "{error}");
}

#[tokio::test]
async fn grants_are_those_of_the_library() {
    let sql = print(&["grants", "--producer", "web", "--operator", "o\"p"]).await;
    let expected = pgqrs::Access::Producer.grants("web") + &pgqrs::Access::Operator.grants("o\"p");
    assert_eq!(sql.trim_end(), expected.trim_end());
    let none = pgqrs(&["grants"]).output().await.expect("it was built");
    Run::from(none).fails(2);
}

#[tokio::test]
async fn help_lists_the_exit_codes_and_a_wrong_command_gets_a_hint() {
    let help = print(&["--help"]).await;
    assert!(help.contains("4  the server can't be reached"), "{help}");
    assert!(print(&["--version"]).await.starts_with("pgqrs "));
    let wrong = pgqrs(&["quues"]).output().await.expect("it was built");
    let error = Run::from(wrong).fails(2);
    assert!(error.contains("queues"), "{error}");
}
