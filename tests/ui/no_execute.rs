#![deny(unused_must_use)]

fn main() {
    pgqrs::enqueue().message(&1).to("tasks");
}
