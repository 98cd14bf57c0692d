//! How a consumer keeps to its share of the group: it looks at the leases now and then, claims
//! what is its own and free, and gives back what another should have.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::consumer::RedisConsumer;
use super::membership::{self, Lease, Member};
use crate::error::Result;
use crate::subscription::Event;

/// How often a member looks whether its group changed.
const VIEW_INTERVAL: Duration = Duration::from_millis(100);

impl RedisConsumer {
    /// Looks at the group now and then, and acts on what changed.
    pub(super) async fn look_at_group(&mut self) -> Result<()> {
        let Some(membership) = &mut self.membership else { return Ok(()) };
        membership.member.polled();
        if Instant::now() < membership.next_view {
            return Ok(());
        }
        let member = membership.member.clone();
        let live = member.attend(&self.inner.link, true).await?;
        let leases = member.leases(&self.inner.link).await?;
        self.let_go(&leases, &member.name);
        let held = self.partitions.keys().copied().collect();
        let plan = membership::plan(&member.name, &live, &leases, &held);
        self.claim(&member, &leases, &plan.claim).await?;
        self.give_back(&member, &plan.give_back).await?;
        if let Some(membership) = &mut self.membership {
            membership.next_view = Instant::now() + VIEW_INTERVAL;
        }
        Ok(())
    }

    /// Stops reading what another owns by now, or what a dropped call gave back.
    fn let_go(&mut self, leases: &[Lease], me: &str) {
        let is_mine = |number: &u32, generation: u64| {
            let lease = &leases[*number as usize];
            lease.owner.as_deref() == Some(me) && lease.generation == generation
        };
        let lost: Vec<u32> = self
            .partitions
            .iter()
            .filter(|(number, assigned)| !is_mine(number, assigned.generation))
            .map(|(number, _)| *number)
            .collect();
        self.lose(&lost);
    }

    /// Forgets partitions that went to another member.
    pub(super) fn lose(&mut self, lost: &[u32]) {
        if !lost.is_empty() {
            self.partitions.retain(|number, _| !lost.contains(number));
            self.tell(Event::Revoked(lost.to_vec()));
        }
    }

    async fn claim(
        &mut self,
        member: &Arc<Member>,
        leases: &[Lease],
        numbers: &[u32],
    ) -> Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let link = self.inner.link.clone();
        let asked = numbers.iter().map(|number| {
            let index = *number as usize;
            let behind = self.begins[index].behind;
            member.claim(&link, *number, leases[index].generation, behind)
        });
        let mut failure = None;
        let mut assigned = Vec::new();
        for claimed in join_all(asked).await {
            match claimed {
                Ok(Some(claimed)) => {
                    assigned.push(claimed.number);
                    self.take_over(&claimed);
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        if !assigned.is_empty() {
            self.tell(Event::Assigned(assigned));
        }
        failure.map_or(Ok(()), Err)
    }

    /// Gives partitions back that another member should have, once nothing of them is out.
    async fn give_back(&mut self, member: &Arc<Member>, numbers: &[u32]) -> Result<()> {
        let mut idle = Vec::new();
        for (number, assigned) in &mut self.partitions {
            assigned.giving_back = numbers.contains(number);
            if assigned.giving_back && !assigned.window.in_flight() {
                idle.push(*number);
            }
        }
        for number in idle {
            member.release(&self.inner.link, number).await?;
            self.lose(&[number]);
        }
        Ok(())
    }
}
