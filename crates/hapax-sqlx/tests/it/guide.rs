//! `docs/guide.md`: its code is that of the example, and its commands answer what it says.

#[path = "../../examples/orders.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a program, of which one part is used here"
)]
mod orders;

use std::process::Command;

const GUIDE: &str = include_str!("../../../../docs/guide.md");
const EXAMPLE: &str = include_str!("../../examples/orders.rs");

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let blocks = GUIDE.split(&fence).skip(1);
    blocks
        .map(|rest| rest.split("```").next().expect("an end"))
        .collect()
}

#[test]
fn every_line_of_code_in_the_guide_is_in_the_example() {
    let found = blocks("rust");
    assert!(found.len() > 3, "the check would see nothing");
    for block in found {
        assert!(EXAMPLE.contains(block), "not in the example:\n{block}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_guide_answers_what_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite://{}/orders.db", folder.path().display());
    let api = orders::api(&database).await.expect("the API");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move { axum::serve(listener, api).await });
    let mut commands = 0;
    for block in blocks("console") {
        for session in block.split("$ ").skip(1) {
            let (command, expected) = session.split_once('\n').expect("a command");
            let command = command.replace("127.0.0.1:3000", &address);
            let run = tokio::task::spawn_blocking(move || {
                Command::new("/bin/sh")
                    .args(["-c", &command])
                    .output()
                    .expect("a shell")
            });
            let output = run.await.expect("no panic");
            assert!(output.status.success(), "{session}");
            let said = String::from_utf8(output.stdout).expect("text");
            for line in expected.lines().filter(|line| !line.is_empty()) {
                let is_said = said.lines().any(|said| said.trim_end() == line);
                assert!(is_said, "{session}\n… but it said:\n{said}");
            }
            commands += 1;
        }
    }
    assert_eq!(commands, 9);
}
