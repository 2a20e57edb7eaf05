struct Mine;

impl pgqrs::Worker for Mine {
    type Carries = u32;
}

fn main() {}
