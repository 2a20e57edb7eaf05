#![deny(unused_must_use)]

fn main() {
    pgqrs::producer("my-service", 3000, "tasks");
}
