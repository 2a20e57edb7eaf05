//! [`Ok`](crate::Ok()), for closures whose error type can't be inferred. In a file of its own, since it hides the
//! standard library's.

use crate::error::Result;

/// `Ok` with the error type [`Error`](crate::Error), for the end of a handler whose error type the compiler can't
/// infer.
///
/// # Example
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// # use pgqrs::Delivery;
/// # use serde_json::Value;
/// let consumer = pgqrs::consumer("tasks").create(&store).await?;
/// consumer
///     .run(|delivery: Delivery<Value>| async move {
///         delivery.extend(std::time::Duration::from_secs(300)).await?;
///         // With the plain `Ok(())`, the compiler asks for the type of the error.
///         pgqrs::Ok(())
///     })
///     .await?;
/// # Ok(())
/// # }
/// ```
#[expect(non_snake_case, reason = "it stands for the variant")]
pub fn Ok<T>(value: T) -> Result<T> {
    Result::Ok(value)
}
