//! What a router runs: functions, or types of your own where there is state to keep.

use std::future::Future;

use crate::delivery::Delivery;
use crate::policy::Failure;

/// Processes one delivery after the other. What it returns is settled by the router: `Ok`
/// acknowledges, and the policy says what becomes of a [`Failure`].
///
/// Functions and closures that take `&Delivery` are handlers. A closure that keeps state clones
/// it for each call; a type that implements the trait just has it:
///
/// ```
/// use broker::router::Handler;
/// use broker::{Delivery, Failure};
///
/// struct Greeter {
///     greeting: String,
/// }
///
/// impl Handler for Greeter {
///     async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
///         let name = std::str::from_utf8(&delivery.payload)?;
///         println!("{} {name}", self.greeting);
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle deliveries",
    note = "functions `async fn(&Delivery) -> Result<(), Failure>` do, and types that implement `Handler`",
    note = "a closure that keeps state must clone it for each call, before its `async move` block"
)]
pub trait Handler: Send + Sync + 'static {
    /// Processes a delivery. It is called again for the same message after a failure, a crash
    /// or a lost partition, so that the same message twice must do no harm.
    ///
    /// A panic counts as a failure. The future is dropped where it outlasts the grace period of
    /// a shutdown; its message comes again.
    fn handle(&self, delivery: &Delivery) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Processes several deliveries at once, for work that is cheaper so. Functions and closures
/// that take `&[Delivery]` are batch handlers.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle batches",
    note = "functions `async fn(&[Delivery]) -> Result<(), Failure>` do, and types that implement `BatchHandler`",
    note = "a closure that keeps state must clone it for each call, before its `async move` block"
)]
pub trait BatchHandler: Send + Sync + 'static {
    /// Processes a batch that is never empty; the messages of a key are in their order.
    ///
    /// A failure is that of all. Where it would reject any of them, they are handed over again
    /// one by one, so that only those are rejected that fail by themselves.
    fn handle(&self, batch: &[Delivery]) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A function whose future may borrow its argument, which no plain bound can say.
#[doc(hidden)]
pub trait AsyncFunction<A>: Fn(A) -> Self::Answer {
    type Answer: Future<Output = Result<(), Failure>> + Send;
}

impl<A, F, Answer> AsyncFunction<A> for F
where
    F: Fn(A) -> Answer,
    Answer: Future<Output = Result<(), Failure>> + Send,
{
    type Answer = Answer;
}

impl<F> Handler for F
where
    F: for<'a> AsyncFunction<&'a Delivery> + Send + Sync + 'static,
{
    fn handle(&self, delivery: &Delivery) -> impl Future<Output = Result<(), Failure>> + Send {
        self(delivery)
    }
}

impl<F> BatchHandler for F
where
    F: for<'a> AsyncFunction<&'a [Delivery]> + Send + Sync + 'static,
{
    fn handle(&self, batch: &[Delivery]) -> impl Future<Output = Result<(), Failure>> + Send {
        self(batch)
    }
}
