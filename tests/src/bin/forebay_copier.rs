//! Copies a topic to another in transactions, each of which publishes a batch and settles its
//! input: what a consume-transform-produce program does, without the transform.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use broker::{Broker, Consumer, Delivery, Group, Limit, Outcome, Result, Subscription, Topic};
use clap::Parser;
use model_server::process::{self, Common, Failure, Patience, Shutdown};

/// How long a batch that is not full waits for more.
const FILL_MAX: Duration = Duration::from_millis(200);

/// Copies a topic to another in transactions until it is asked to end.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// The topic to read.
    #[arg(long)]
    source: Topic,
    /// The topic to write.
    #[arg(long)]
    target: Topic,
    /// The group that shares out the source's partitions.
    #[arg(long)]
    group: Group,
    /// The name by which the group knows this copier after a restart.
    #[arg(long)]
    instance: Option<String>,
    /// The most messages of one transaction.
    #[arg(long, default_value_t = 750)]
    batch: usize,
}

struct Copier {
    arguments: Arguments,
    shutdown: Shutdown,
}

impl Copier {
    /// Subscribes anew after each failure that may pass: what was not committed comes again.
    async fn run(&mut self, broker: &dyn Broker) -> Result<(), Failure> {
        let Arguments { source, group, instance, .. } = &self.arguments;
        let mut subscription = Subscription::group(source, group);
        subscription.instance.clone_from(instance);
        let mut patience = Patience::default();
        while !self.shutdown.is_wanted() {
            let copied = match broker.subscribe(subscription.clone()).await {
                Ok(mut consumer) => self.copy(consumer.as_mut()).await,
                Err(error) => Err(error),
            };
            match copied {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == broker::ErrorKind::Fenced => {
                    tracing::warn!(?error, "begins anew");
                }
                Err(error) => patience.bear(error, &self.shutdown).await?,
            }
        }
        Ok(())
    }

    async fn copy(&mut self, consumer: &mut dyn Consumer) -> Result<()> {
        while !self.shutdown.is_wanted() {
            let batch = self.gather(consumer).await?;
            if batch.is_empty() {
                continue;
            }
            let messages = batch.iter().map(|delivery| delivery.message().clone()).collect();
            let tokens = batch.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack));
            let mut step = consumer.transaction().await?;
            step.publish(&self.arguments.target, messages).await?;
            step.settle(tokens.collect()).await?;
            step.commit().await?;
        }
        Ok(())
    }

    async fn gather(&self, consumer: &mut dyn Consumer) -> Result<Vec<Delivery>> {
        let until = Instant::now() + FILL_MAX;
        let mut batch = Vec::new();
        while batch.len() < self.arguments.batch {
            let wait = until.saturating_duration_since(Instant::now());
            batch.extend(
                consumer.receive(Limit::new(self.arguments.batch - batch.len(), wait)).await?,
            );
            process::note(consumer.events());
            if wait.is_zero() {
                break;
            }
        }
        Ok(batch)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    process::run(async move |shutdown| {
        let broker = arguments.common.settings()?.connect().await?;
        Copier { arguments, shutdown }.run(broker.as_ref()).await?;
        Ok(broker.shutdown().await?)
    })
}
