//! How a consumer keeps to its share of the group: it looks at the rows now and then, claims
//! what is its own and free, and gives back what another should have.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::consumer::EmbeddedConsumer;
use super::membership::{self, Member};
use crate::error::Result;
use crate::name::Group;
use crate::subscription::Event;

/// How often a member looks whether its group changed.
const VIEW_INTERVAL: Duration = Duration::from_millis(100);

impl EmbeddedConsumer {
    /// Looks at the group now and then, and acts on what changed.
    pub(super) async fn look_at_group(&mut self) -> Result<()> {
        let Some(membership) = &mut self.membership else { return Ok(()) };
        membership.member.polled();
        if Instant::now() < membership.next_view {
            return Ok(());
        }
        membership.next_view = Instant::now() + VIEW_INTERVAL;
        let (group, member) = (membership.group.clone(), membership.member.clone());
        let (name, topic) = (group.clone(), self.topic.id);
        let view = self.inner.reader.query(move |c| membership::view(c, name.as_str(), topic));
        let view = view.await?;
        if !view.members.iter().any(|row| row.name == member.name) {
            return self.rejoin(group, member).await;
        }
        let (dead, live): (Vec<_>, Vec<_>) = view.members.into_iter().partition(|row| {
            row.name != member.name && row.is_dead(&self.inner.config.directory, &self.inner.boot)
        });
        self.let_go(&view.owners, &member.name);
        let live: Vec<String> = live.into_iter().map(|row| row.name).collect();
        let held = self.partitions.keys().copied().collect();
        let plan = membership::plan(&member.name, &live, &view.owners, &held);
        let dead: Vec<String> = dead.into_iter().map(|row| row.name).collect();
        if !dead.is_empty() || !plan.claim.is_empty() {
            self.claim(&group, &member, dead, plan.claim).await?;
        }
        self.give_back(&group, &member, &plan.give_back).await
    }

    /// Stops reading what another owns by now, or what a dropped call gave back.
    fn let_go(&mut self, owners: &[Option<String>], me: &str) {
        let mine = |number: &u32| owners[*number as usize].as_deref() == Some(me);
        let lost: Vec<u32> = self.partitions.keys().copied().filter(|n| !mine(n)).collect();
        if !lost.is_empty() {
            self.partitions.retain(|number, _| !lost.contains(number));
            self.tell(Event::Revoked(lost));
        }
    }

    /// Comes back after others took this member for dead: all it held is stale.
    async fn rejoin(&mut self, group: Group, member: Arc<Member>) -> Result<()> {
        let lost: Vec<u32> = std::mem::take(&mut self.partitions).into_keys().collect();
        if !lost.is_empty() {
            self.tell(Event::Revoked(lost));
        }
        self.inner.enter(&group, self.topic.id, &member).await
    }

    async fn claim(
        &mut self,
        group: &Group,
        member: &Arc<Member>,
        dead: Vec<String>,
        numbers: Vec<u32>,
    ) -> Result<()> {
        let (group, me, start) = (group.clone(), member.name.clone(), self.subscription.start);
        let rows: Vec<(u32, i64)> =
            numbers.iter().map(|n| (*n, self.topic.partitions[*n as usize])).collect();
        let claimed = self.inner.writer.write(move |connection| {
            for name in &dead {
                membership::remove(connection, name, false)?;
            }
            let mut claimed = Vec::new();
            for row in rows {
                claimed.extend(membership::claim(connection, &me, group.as_str(), row, start)?);
            }
            Ok(claimed)
        });
        let claimed = claimed.await?;
        if !claimed.is_empty() {
            self.tell(Event::Assigned(claimed.iter().map(|c| c.number).collect()));
        }
        for claimed in claimed {
            self.assign(claimed, 0);
        }
        Ok(())
    }

    /// Gives partitions back that another member should have, once nothing of them is out.
    async fn give_back(
        &mut self,
        group: &Group,
        member: &Arc<Member>,
        numbers: &[u32],
    ) -> Result<()> {
        let mut idle = Vec::new();
        for (number, assigned) in &mut self.partitions {
            assigned.giving_back = numbers.contains(number);
            if assigned.giving_back && !assigned.window.in_flight() {
                idle.push((*number, assigned.row));
            }
        }
        if idle.is_empty() {
            return Ok(());
        }
        let revoked: Vec<u32> = idle.iter().map(|(number, _)| *number).collect();
        let (group, me) = (group.clone(), member.name.clone());
        let given = self.inner.writer.write(move |connection| {
            idle.iter().try_for_each(|(_, partition)| {
                membership::give_back(connection, &me, group.as_str(), *partition)
            })
        });
        given.await?;
        self.partitions.retain(|number, _| !revoked.contains(number));
        self.tell(Event::Revoked(revoked));
        Ok(())
    }
}
