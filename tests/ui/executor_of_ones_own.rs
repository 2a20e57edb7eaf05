struct Mine;

impl pgqrs::Executor for Mine {}

fn main() {}
