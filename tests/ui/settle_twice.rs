async fn handle(delivery: pgqrs::Delivery<u32>, store: pgqrs::Store) {
    let _ = delivery.ack(&store).await;
    let _ = delivery.ack(&store).await;
}

fn main() {}
