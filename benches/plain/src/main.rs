//! Sends and drains by the library without its features for telemetry, as the benchmark asks for them.

#[path = "../../telemetry/work.rs"]
mod work;

#[tokio::main]
async fn main() -> work::Outcome {
    work::serve().await
}
