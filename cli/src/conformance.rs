//! `forebay conformance`: the rules of the contract against a user's own broker.
//!
//! A broken rule is a panic, as in a test; here it is caught and told. Two things that a test
//! can do are out of reach: a server that others use is not restarted (such a rule only connects
//! anew), and a living member can be taken for dead only where the backend has static members.
//! A rule that needs the second is reported as not played.

use std::cell::RefCell;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use broker::conformance::{Harness, RULES, Rule, is_of_this_run};
use broker::{Broker, Consumer, ErrorKind, Policy, Subscription, factory};
use model_server::process::{Common, Failure, Reason};
use regex::Regex;
use serde::Serialize;

use crate::connection::{Place, Store};
use crate::output;
use crate::signals::Signals;

/// The backends on which a member that joins anew is enough to take the place of another.
const WITH_STATIC_MEMBERS: [&str; 2] = ["kafka", "pubsub"];
/// How long a group may take to notice that its members are gone.
const CLEAN_UP_MAX: Duration = Duration::from_secs(20);

/// Hold a broker to the rules of Forebay's contract
///
/// Every rule makes topics and groups of its own, which are deleted at the end. Exit code 1
/// tells of a broken rule. Rules for what the broker lacks check that it says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  forebay conformance --config my-kafka.ini
  forebay conformance --filter '^(order|groups) ' --json")]
pub(crate) struct Arguments {
    /// Play only rules whose group and name, as shown, match a regular expression
    #[arg(long, value_name = "REGEX")]
    filter: Option<Regex>,
    /// Only list the rules
    #[arg(long)]
    list: bool,
    /// Report as JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    common: Common,
}

/// How a rule fared.
#[derive(Debug, Serialize)]
struct Verdict {
    group: &'static str,
    rule: String,
    result: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Kept,
    Broken,
    NotPlayed,
    Listed,
}

/// A broker as its users have it: all layers on, made anew for each connection.
struct Own {
    config: factory::Config,
    /// A rule asked for what cannot be staged here.
    out_of_reach: AtomicBool,
}

#[async_trait]
impl Harness for Own {
    async fn broker(&self) -> Arc<dyn Broker> {
        self.delivery_layer(Policy::default()).await
    }

    async fn delivery_layer(&self, default: Policy) -> Arc<dyn Broker> {
        self.config.clone().connect(default).await.expect("the broker can be reached")
    }

    async fn restart_server(&self) {}

    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer> {
        let can = WITH_STATIC_MEMBERS.contains(&self.config.kind());
        self.out_of_reach.store(!can, Ordering::Relaxed);
        assert!(can, "no living member can be taken for dead from here");
        let broker = self.broker().await;
        broker.subscribe(subscription.clone()).await.expect("the member joins")
    }
}

thread_local! {
    /// Where the last panic of this thread was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let chosen = |rule: &&Rule| {
        let filter = arguments.filter.as_ref();
        filter.is_none_or(|filter| filter.is_match(&format!("{} {}", rule.group, sentence(rule))))
    };
    let rules: Vec<&Rule> = RULES.iter().filter(chosen).collect();
    if rules.is_empty() {
        return Err(Failure::new(Reason::Unexpected, "no rule matches the filter"));
    }
    if arguments.list {
        let listed = |rule: &&Rule| show(arguments, &Verdict::new(rule, Outcome::Listed));
        rules.iter().try_for_each(listed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = Place::read(&arguments.common)?;
    // A broker that cannot be reached is told of once, not by every rule.
    let broker = place.connect(Store::MayBeMade).await?;
    broker.health().await?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        PLACE.with_borrow_mut(|last| *last = place);
    }));
    let harness = Own { config: place.broker, out_of_reach: AtomicBool::new(false) };
    let outcome = play_all(arguments, &rules, &harness).await;
    clean_up(&broker).await?;
    broker.shutdown().await?;
    Ok(if outcome? { ExitCode::SUCCESS } else { Reason::Unexpected.into() })
}

/// Whether no rule is broken.
async fn play_all(arguments: &Arguments, rules: &[&Rule], harness: &Own) -> Result<bool, Failure> {
    let mut signals = Signals::listen()?;
    let mut counts = [0_usize; 3];
    for rule in rules {
        let verdict = tokio::select! {
            biased;
            () = signals.next() => {
                return Err(Failure::new(Reason::Unexpected, "the run was ended early"));
            }
            verdict = play(rule, harness) => verdict,
        };
        match verdict.result {
            Outcome::Kept => counts[0] += 1,
            Outcome::Broken => counts[1] += 1,
            Outcome::NotPlayed | Outcome::Listed => counts[2] += 1,
        }
        show(arguments, &verdict)?;
    }
    let [kept, broken, not_played] = counts;
    if !arguments.json {
        output::print(&format!("{kept} kept, {broken} broken, {not_played} not played\n"))?;
    }
    Ok(broken == 0)
}

async fn play(rule: &Rule, harness: &Own) -> Verdict {
    harness.out_of_reach.store(false, Ordering::Relaxed);
    PLACE.take();
    let begun = Instant::now();
    let played = rule.play(harness).await;
    let result = match &played {
        Ok(()) => Outcome::Kept,
        Err(_) if harness.out_of_reach.load(Ordering::Relaxed) => Outcome::NotPlayed,
        Err(_) => Outcome::Broken,
    };
    let at = |problem| match PLACE.take().filter(|_| result == Outcome::Broken) {
        Some(place) => format!("{problem} (at {place})"),
        None => problem,
    };
    let (seconds, problem) = (Some(begun.elapsed().as_secs_f64()), played.err().map(at));
    Verdict { seconds, problem, ..Verdict::new(rule, result) }
}

impl Verdict {
    fn new(rule: &Rule, result: Outcome) -> Self {
        Self { group: rule.group, rule: sentence(rule), result, seconds: None, problem: None }
    }
}

/// A rule's name as words.
fn sentence(rule: &Rule) -> String {
    rule.name.replace('_', " ")
}

fn show(arguments: &Arguments, verdict: &Verdict) -> Result<(), Failure> {
    if arguments.json {
        return output::print(&output::json(verdict)?);
    }
    let Verdict { group, rule, result, seconds, problem } = verdict;
    let mark = match result {
        Outcome::Kept => "kept    ",
        Outcome::Broken => "BROKEN  ",
        Outcome::NotPlayed => "not played  ",
        Outcome::Listed => "",
    };
    let seconds = seconds.map_or(String::new(), |seconds| format!(" ({seconds:.1} s)"));
    let mut text = format!("{mark}{group} {rule}{seconds}\n");
    for line in problem.iter().flat_map(|problem| problem.lines()) {
        text += &format!("        {}\n", crate::escape::text(line));
    }
    output::print(&text)
}

/// Deletes what the rules made. A group lives on for a while after its last member.
async fn clean_up(broker: &Arc<dyn Broker>) -> Result<(), Failure> {
    let admin = broker.admin();
    for topic in admin.list().await?.iter().filter(|topic| is_of_this_run(topic.as_str())) {
        match admin.delete_topic(topic).await {
            // Some rules delete their topic, and others see that a moment later.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            deleted => deleted?,
        }
    }
    let begun = Instant::now();
    for group in admin.groups().await?.iter().filter(|group| is_of_this_run(group.as_str())) {
        loop {
            match admin.delete_group(group).await {
                Err(error) if error.kind() == ErrorKind::InUse => {}
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => break,
            }
            if begun.elapsed() > CLEAN_UP_MAX {
                eprintln!("the group {group} is still there: its members are not gone yet");
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_is_there_once() {
        let names: BTreeSet<_> = RULES.iter().map(|rule| (rule.group, rule.name)).collect();
        assert_eq!(names.len(), RULES.len());
        assert!(names.contains(&("settle", "an_acknowledged_message_does_not_come_again")));
        let groups: BTreeSet<&str> = RULES.iter().map(|rule| rule.group).collect();
        assert!(groups.contains("payload") && groups.contains("absent"), "{groups:?}");
    }
}
