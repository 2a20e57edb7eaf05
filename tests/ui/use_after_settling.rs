async fn handle(delivery: pgqrs::Delivery<u32>, store: pgqrs::Store) {
    let _ = delivery.ack(&store).await;
    println!("{:?}", delivery.payload());
}

fn main() {}
