//! `forebay dlq retry` and `forebay dlq drop`; the module above says how they keep letters safe.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::{
    AckToken, BrokerExt, Consumer, Delivery, ErrorKind, Limit, Message, Outcome, Policy,
    Subscription, Topic,
};
use model_server::process::{Failure, Reason};
use serde::Serialize;
use tokio::time::Instant;

use super::selection::Selection;
use super::{BATCH, Letters, WAIT, Where, letter, no_such};
use crate::output;
use crate::question::Leave;

/// After so long without a letter that must come, someone else holds it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publish dead letters to the topic that they came from, as they were
///
/// They lose the headers that tell of their death, keep all others (so their id, too), and are
/// settled. What is published is durable first: a crash may repeat it and loses nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  forebay dlq retry --all --dry-run
  forebay dlq retry 0:17 run-7-42
  forebay dlq retry --reason 'model .* is not loaded'

Letters that stand before a chosen one and are not chosen move to the end of the dead-letter
topic: they get another position, and keep their id and their headers.")]
pub(crate) struct Retry {
    #[command(flatten)]
    selection: Selection,
    /// Publish them to this topic instead
    #[arg(long, value_name = "TOPIC")]
    to: Option<Topic>,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Where,
}

/// Settle dead letters for good, without publishing them anywhere
///
/// `dlq list --settled` shows them until retention deletes them. On a terminal it asks first;
/// elsewhere it wants --yes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  forebay dlq drop --all --dry-run
  forebay dlq drop --reason 'not an image' --yes

Letters that stand before a chosen one and are not chosen move to the end of the dead-letter
topic: they get another position, and keep their id and their headers.")]
pub(crate) struct Drop {
    #[command(flatten)]
    selection: Selection,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    leave: Leave,
    #[command(flatten)]
    place: Where,
}

/// What becomes of the chosen letters.
#[derive(Debug, Clone, Copy)]
enum Deed<'a> {
    Retry { to: Option<&'a Topic> },
    Drop,
}

/// What will be done, or was.
#[derive(Debug, Default, Serialize)]
struct Plan {
    done: &'static str,
    dry_run: bool,
    /// How many letters are chosen.
    chosen: u64,
    /// How many are passed over and move to the end.
    moved: u64,
    /// How many go to each topic.
    topics: BTreeMap<String, u64>,
    /// The last chosen letter of each partition.
    #[serde(skip)]
    last: BTreeMap<u32, u64>,
    #[serde(skip)]
    without_source: u64,
}

pub(super) async fn retry(arguments: &Retry) -> Result<(), Failure> {
    let letters = Letters::open(&arguments.place).await?;
    let deed = Deed::Retry { to: arguments.to.as_ref() };
    let plan = plan(&letters, &arguments.selection, deed, arguments.dry_run).await?;
    check_topics(&letters, &plan).await?;
    if !arguments.dry_run {
        Work::new(&letters, &arguments.selection, deed, &plan).run().await?;
    }
    conclude(letters, &plan, arguments.place.json).await
}

pub(super) async fn drop(arguments: &Drop) -> Result<(), Failure> {
    let letters = Letters::open(&arguments.place).await?;
    let plan = plan(&letters, &arguments.selection, Deed::Drop, arguments.dry_run).await?;
    if !arguments.dry_run && plan.chosen > 0 {
        let (count, topic) = (plan.chosen, &letters.topic);
        let question = format!("Type {count} to drop {count} dead letters of {topic}:");
        arguments.leave.obtain(&question, &count.to_string())?;
        Work::new(&letters, &arguments.selection, Deed::Drop, &plan).run().await?;
    }
    conclude(letters, &plan, arguments.place.json).await
}

/// Looks at all open letters. The passed over are those before the last chosen one.
async fn plan(
    letters: &Letters,
    selection: &Selection,
    deed: Deed<'_>,
    dry_run: bool,
) -> Result<Plan, Failure> {
    let capabilities = letters.broker.capabilities();
    capabilities.require(capabilities.lag, "lag, so that nothing tells what was dealt with")?;
    let done = if matches!(deed, Deed::Drop) { "dropped" } else { "retried" };
    let mut plan = Plan { done, dry_run, ..Plan::default() };
    let mut missing = selection.names();
    let mut passed: BTreeMap<u32, u64> = BTreeMap::new();
    let see = |delivery: &Delivery| {
        missing.see(delivery);
        let (partition, offset) = (delivery.position().partition(), delivery.position().offset());
        let passed = passed.entry(partition).or_default();
        if !selection.takes(delivery) {
            *passed += 1;
            return Ok(());
        }
        plan.chosen += 1;
        plan.moved += std::mem::take(passed);
        plan.last.insert(partition, offset);
        match target(delivery, deed) {
            Some(topic) => *plan.topics.entry(topic.to_owned()).or_default() += 1,
            None if matches!(deed, Deed::Retry { .. }) => plan.without_source += 1,
            None => {}
        }
        Ok(())
    };
    letters.read(true, see).await?;
    let names = missing.left();
    if names.is_empty() { Ok(plan) } else { Err(no_such(&names, &letters.topic)) }
}

/// Where a letter goes; nowhere where it is dropped, or does not say where it came from.
fn target<'a>(letter: &'a Message, deed: Deed<'a>) -> Option<&'a str> {
    match deed {
        Deed::Retry { to: Some(topic) } => Some(topic.as_str()),
        Deed::Retry { to: None } => letter::source(letter),
        Deed::Drop => None,
    }
}

/// Everything must have somewhere to go before anything is done.
async fn check_topics(letters: &Letters, plan: &Plan) -> Result<(), Failure> {
    if plan.without_source > 0 {
        let count = plan.without_source;
        let problem = format!("{count} letters do not say where they came from: choose --to TOPIC");
        return Err(Failure::new(Reason::Unexpected, problem));
    }
    for topic in plan.topics.keys() {
        letters.broker.admin().describe(&Topic::new(topic)?).await?;
    }
    Ok(())
}

async fn conclude(letters: Letters, plan: &Plan, json: bool) -> Result<(), Failure> {
    let Plan { done, chosen, moved, .. } = plan;
    let would = if plan.dry_run { "would be " } else { "" };
    let mut text = format!("{would}{done}: {chosen} of the dead letters in {}", letters.topic);
    for (topic, count) in &plan.topics {
        text += &format!(", {count} to {topic}");
    }
    if *moved > 0 {
        text +=
            &format!("\n{would}moved to its end: {moved} that stood before and were not chosen");
    }
    output::print(&if json { output::json(plan)? } else { text + "\n" })?;
    letters.close().await
}

/// The deed under way.
struct Work<'a> {
    letters: &'a Letters,
    selection: &'a Selection,
    deed: Deed<'a>,
    /// The last letter to deal with in each partition that is not done.
    last: BTreeMap<u32, u64>,
    with_transactions: bool,
}

impl<'a> Work<'a> {
    fn new(letters: &'a Letters, selection: &'a Selection, deed: Deed<'a>, plan: &Plan) -> Self {
        let with_transactions = letters.broker.capabilities().transactions;
        Self { letters, selection, deed, last: plan.last.clone(), with_transactions }
    }

    /// A member that never counts a letter as out of attempts, however often it is passed by.
    async fn member(&self) -> Result<Box<dyn Consumer>, Failure> {
        let policy = Policy::default().with_attempts(u32::MAX);
        let member = Subscription::group(&self.letters.topic, &self.letters.group);
        Ok(self.letters.broker.subscribe(member.with_policy(policy)).await?)
    }

    async fn run(&mut self) -> Result<(), Failure> {
        if self.last.is_empty() {
            return Ok(());
        }
        self.require_alone().await?;
        let mut member = self.member().await?;
        let mut waiting_since = Instant::now();
        while !self.last.is_empty() {
            let deliveries = member.receive(Limit::new(BATCH, WAIT)).await?;
            if !deliveries.is_empty() {
                waiting_since = Instant::now();
            } else if waiting_since.elapsed() > PATIENCE {
                return Err(self.lost());
            }
            let (ours, done) = self.split(deliveries);
            if ours.is_empty() || self.step(member.as_mut(), ours).await? {
                self.last.retain(|partition, _| !done.contains(partition));
            } else {
                // The broker's transactions do not stretch so far; the letters come again.
                self.with_transactions = false;
                std::mem::drop(member);
                member = self.member().await?;
            }
        }
        Ok(())
    }

    /// What is to be dealt with, and the partitions of which nothing is left then. Later letters
    /// stay unsettled and come again.
    fn split(&self, deliveries: Vec<Delivery>) -> (Vec<Delivery>, Vec<u32>) {
        let last = |delivery: &Delivery| self.last.get(&delivery.position().partition());
        let is_last = |delivery: &&Delivery| {
            last(delivery).is_some_and(|last| delivery.position().offset() >= *last)
        };
        let done = deliveries.iter().filter(is_last);
        let done = done.map(|delivery| delivery.position().partition()).collect();
        let is_ours = |delivery: &Delivery| {
            last(delivery).is_some_and(|last| delivery.position().offset() <= *last)
        };
        (deliveries.into_iter().filter(is_ours).collect(), done)
    }

    /// Deals with letters: publishes, then settles. False where a transaction was asked too
    /// much, with nothing done.
    async fn step(&self, member: &mut dyn Consumer, ours: Vec<Delivery>) -> Result<bool, Failure> {
        let copies = self.copies(&ours)?;
        let tokens = ours.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack));
        let settlements = tokens.collect();
        if self.with_transactions {
            return match at_once(member, copies, settlements).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
                done => Ok(done.map(|()| true)?),
            };
        }
        for (topic, messages) in copies {
            self.letters.broker.publish_all(&topic, messages).await?;
        }
        match member.settle(settlements).await.into_iter().next() {
            Some(unsettled) => Err(unsettled.error.into()),
            None => Ok(true),
        }
    }

    /// What is to be published where. Nothing is left out that is not to be dropped.
    fn copies(&self, ours: &[Delivery]) -> Result<BTreeMap<Topic, Vec<Message>>, Failure> {
        let mut copies: BTreeMap<Topic, Vec<Message>> = BTreeMap::new();
        for delivery in ours {
            let is_chosen = self.selection.takes(delivery);
            if is_chosen && matches!(self.deed, Deed::Drop) {
                continue;
            }
            let (topic, message) = match target(delivery, self.deed) {
                Some(topic) if is_chosen => (Topic::new(topic)?, letter::revived(delivery)),
                _ => (self.letters.topic.clone(), delivery.message().clone()),
            };
            copies.entry(topic).or_default().push(message);
        }
        Ok(copies)
    }

    /// Two of these at once would wait for each other's letters.
    async fn require_alone(&self) -> Result<(), Failure> {
        let group = &self.letters.group;
        let described = match self.letters.broker.admin().describe_group(group).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            described => described?,
        };
        let owns = |(topic, _): &(Topic, u32)| *topic == self.letters.topic;
        let is_at_work = described.members.iter().any(|it| it.partitions.iter().any(owns));
        match is_at_work {
            true => Err(self.lost()),
            false => Ok(()),
        }
    }

    fn lost(&self) -> Failure {
        let (group, topic) = (&self.letters.group, &self.letters.topic);
        let problem = format!("another member of {group} is at work on {topic}: try again later");
        Failure::new(Reason::Unexpected, problem)
    }
}

/// Publishes and settles as one.
async fn at_once(
    member: &mut dyn Consumer,
    copies: BTreeMap<Topic, Vec<Message>>,
    settlements: Vec<(AckToken, Outcome)>,
) -> broker::Result<()> {
    let mut transaction = member.transaction().await?;
    for (topic, messages) in copies {
        transaction.publish(&topic, messages).await?;
    }
    transaction.settle(settlements).await?;
    transaction.commit().await
}
