//! The operator's wishes, done: members, credentials, keys, and a look at the queue.
//!
//! Rows are written by the queue's writer and the call returns after the commit. Then the snapshots that other threads
//! read are replaced ([`Daemon`]).
//!
//! A key's file is written before the row that needs it: a crash between the two leaves a key that the next
//! enrolment of that domain finds and uses.

use std::time::Duration;

use atproto::sending::Day;
use smtp::address::canonical_domain;

use super::{
    admin::Operations,
    answers::{EventFilter, EventPage, QueueDone, QueueWish, Where, Why},
    api::{
        ActionFilter, ActionPage, ActionRow, ActionShown, ActionWish, AddMember, AddToken, AuditFilter, AuditPage, AuditRow,
        ClimbFilter, ClimbRow, ClimbShown, ClimbVerb, CredentialRow, Enrolled, ImportKey, Key, Member, NewSecret, NewToken,
        Overview, PAGE_MAX, PlanChecked, PlanRow, PlanShown, PlanWish, QueueFilter, QueuePage, QueuedMessage, Reason, Refusal,
        RemoveKeys, RepliesFilter, RepliesPage, SetMember, ShapingChecked, ShapingRow, ShapingText, ShapingWish, Simulated,
        SiteShown, SitesFilter, SitesPage, SourceHealthRow, SourceRow, Status, StepFilter, StepRow, TokenRow, WarmupPage,
        WarmupWish,
    },
    daemon::Daemon,
    members::{domain, refuse_store},
    standing, tiers,
    views::{blocking, queue_id, unable, view_delivery, view_key, view_message},
    wishes::{Verb, from_hex, hex},
};
use crate::{
    config,
    policy::{
        self, Class, Credential,
        members::{self, is_did},
    },
    queue::Filter,
    sign::{SigningKey, key::check_selector},
};

/// Credentials of one domain. Each one more is compared with a password that fits none.
const CREDENTIALS_MAX: usize = 16;
/// What a suspended member is told.
const SUSPENDED: &str = "suspended by the operator";

impl Operations for Daemon {
    async fn add_member(&self, new: AddMember) -> Result<Enrolled, Refusal> {
        if !is_did(&new.did) {
            return Err(Refusal::Wrong(format!("{:?} is not a DID; it looks like did:plc:… or did:web:host.example", new.did)));
        }
        let domain = domain(&new.domain)?;
        let classes = new.class.iter().map(|class| class.parse()).collect::<Result<Vec<Class>, _>>().map_err(Refusal::Wrong)?;
        let class = classes.first().copied().unwrap_or(Class::Transactional);
        let tier = new.tier.as_deref().map(|tier| tiers::known(&self.config.load(), tier)).transpose()?;

        let _change = self.changing.lock().await;
        let known = self.directory.load().member_by_did(&new.did).map(|member| policy::Member::clone(member));
        {
            let rows = self.rows();
            let mut others = rows.members.values().filter(|other| known.as_ref().is_none_or(|known| known.id != other.id));
            if let Some(owner) = others.find(|other| other.domains.contains(&domain)) {
                return Err(Refusal::Conflict(format!("{domain} belongs to {}; remove that member first", owner.did)));
            }
            if rows.credentials.values().filter(|held| held.domain == domain).count() >= CREDENTIALS_MAX {
                return Err(Refusal::Conflict(format!(
                    "{domain} has {CREDENTIALS_MAX} credentials already; remove the member and enrol it anew"
                )));
            }
        }

        let keys = blocking(self, {
            let domain = domain.clone();
            move |daemon| {
                if daemon.store.selectors(&domain)?.iter().all(|selector| daemon.is_coop_key(&domain, selector)) {
                    daemon.store.rotate(&domain, daemon.now())?;
                }
                daemon.load_keys()?;
                Ok(daemon.keys.load().member(&domain).to_vec())
            }
        })
        .await?
        .map_err(refuse_store)?;

        let secret = members::new_secret(&self.parts.dice);
        let mut member = known.unwrap_or(policy::Member {
            id: 0,
            did: new.did,
            handle: None,
            suspended: None,
            tier: None,
            pool: None,
            domains: Vec::new(),
        });
        member.tier = tier.or(member.tier);
        if !member.domains.contains(&domain) {
            member.domains.push(domain.clone());
        }
        let credential =
            Credential { id: 0, member: 0, domain: domain.clone(), class, classes, hash: self.secrets.hash(secret.expose()) };
        let (member, credential) = self.write_enrolment(member, credential).await?;

        let did = member.did.clone();
        {
            let mut rows = self.rows();
            rows.members.insert(member.id, member);
            rows.credentials.insert(credential.id, credential);
            self.rebuild(&rows);
        }
        self.wake.notify_one();
        self.newcomer.notify_one();
        let sources: Vec<_> = self.config.load().source.iter().map(|source| source.address).collect();
        let records = policy::dns_records(&domain, &did, &keys, &sources).map_err(|error| Refusal::Unable(error.to_string()))?;
        Ok(Enrolled {
            username: domain.clone(),
            smtp_url: self.smtp_url(&domain, secret.expose()),
            password: secret.expose().to_owned(),
            dns_records: records.into_iter().map(Into::into).collect(),
            did,
            domain,
        })
    }

    async fn members(&self) -> Result<Vec<Member>, Refusal> {
        let directory = self.directory.load_full();
        let rows: Vec<_> = self.rows().members.values().cloned().collect();
        Ok(rows.iter().map(|member| self.view(&directory, member)).collect())
    }

    async fn member(&self, member: &str) -> Result<Member, Refusal> {
        let member = self.find(member)?;
        Ok(self.view(&self.directory.load_full(), &member))
    }

    async fn set_member(&self, member: &str, change: SetMember) -> Result<Member, Refusal> {
        let config = self.config.load_full();
        let tier = change.tier.as_deref().map(|tier| tiers::known(&config, tier)).transpose()?;
        let named = change.pool.as_deref().filter(|pool| !pool.is_empty());
        let pool = named.map(|pool| tiers::known_pool(&config, pool)).transpose()?;
        if tier.is_none() && change.pool.is_none() {
            return Err(Refusal::Wrong("nothing to set: name a tier or a pool".to_owned()));
        }
        self.change(member, |member| {
            member.tier = tier.or(member.tier.take());
            if change.pool.is_some() {
                member.pool = pool;
            }
        })
        .await
    }

    async fn suspend(&self, member: &str, suspended: bool) -> Result<Member, Refusal> {
        self.change(member, |member| member.suspended = suspended.then(|| SUSPENDED.to_owned())).await
    }

    async fn remove_member(&self, member: &str) -> Result<Member, Refusal> {
        let _change = self.changing.lock().await;
        let member = self.find(member)?;
        let view = self.view(&self.directory.load_full(), &member);
        let held: Vec<u32> = self.rows().credentials.values().filter(|it| it.member == member.id).map(|it| it.id).collect();
        let (id, did, gone, today) = (member.id, member.did.clone(), held.clone(), Day::of(self.now()));
        let work = self.parts.queue.transact(move |txn, tables| {
            tables.members.delete(txn, &id.to_be_bytes())?;
            tables.labels.delete(txn, did.as_bytes())?;
            standing::forget(txn, tables, id, &did, today)?;
            for credential in gone {
                tables.credentials.delete(txn, &credential.to_be_bytes())?;
            }
            Ok(())
        });
        work.await.map_err(unable)?;
        {
            let mut rows = self.rows();
            rows.members.remove(&id);
            held.iter().for_each(|credential| drop(rows.credentials.remove(credential)));
            self.rebuild(&rows);
        }
        // Keys last: a message on its way to the signers still finds them, and files left by a crash do no harm.
        blocking(self, move |daemon| {
            for domain in &member.domains {
                for selector in daemon.store.selectors(domain)? {
                    if !daemon.is_coop_key(domain, &selector) {
                        daemon.store.remove(domain, &selector)?;
                    }
                }
            }
            Ok(())
        })
        .await?
        .map_err(refuse_store)?;
        self.handle_keys_changed().await?;
        Ok(view)
    }

    async fn import_key(&self, new: ImportKey) -> Result<Key, Refusal> {
        let domain = self.signing_domain(&new.domain)?;
        check_selector(&new.selector).map_err(|error| Refusal::Wrong(error.to_string()))?;
        let _change = self.changing.lock().await;
        let added = blocking(self, move |daemon| {
            let key = SigningKey::from_pem(&domain, &new.selector, new.pem.as_bytes())?;
            daemon.store.add(&key)?;
            Ok(key)
        });
        let key = added.await?.map_err(refuse_store)?;
        self.handle_keys_changed().await?;
        view_key(&key)
    }

    async fn keys(&self) -> Result<Vec<Key>, Refusal> {
        let (keys, troubles) = blocking(self, |daemon| daemon.store.load_all()).await?.map_err(refuse_store)?;
        for trouble in troubles {
            tracing::error!(%trouble, "a key is left out");
        }
        keys.iter().map(view_key).collect()
    }

    async fn rotate_keys(&self, domain: &str) -> Result<Vec<Key>, Refusal> {
        let domain = self.signing_domain(domain)?;
        let _change = self.changing.lock().await;
        let pair = blocking(self, move |daemon| daemon.store.rotate(&domain, daemon.now())).await?.map_err(refuse_store)?;
        self.handle_keys_changed().await?;
        pair.iter().map(view_key).collect()
    }

    async fn remove_keys(&self, which: RemoveKeys) -> Result<Vec<Key>, Refusal> {
        let domain = domain(&which.domain)?;
        let _change = self.changing.lock().await;
        let removed = blocking(self, move |daemon| {
            let mut removed = Vec::new();
            for selector in daemon.store.selectors(&domain)? {
                if which.selector.as_ref().is_some_and(|wanted| *wanted != selector) {
                    continue;
                }
                let key = daemon.store.load(&domain, &selector)?;
                if which.algorithm.as_ref().is_some_and(|wanted| *wanted != key.algorithm().to_string()) {
                    continue;
                }
                daemon.store.remove(&domain, &selector)?;
                removed.push(key);
            }
            Ok(removed)
        });
        let removed = removed.await?.map_err(refuse_store)?;
        if removed.is_empty() {
            return Err(Refusal::Unknown("there is no such key; `tradewind key list` shows them all".to_owned()));
        }
        self.handle_keys_changed().await?;
        removed.iter().map(view_key).collect()
    }

    async fn why(&self, id: &str) -> Result<Why, Refusal> {
        self.explain_message(id).await
    }

    async fn whereabouts(&self, domain: &str) -> Result<Where, Refusal> {
        self.explain_domain(domain).await
    }

    async fn sources(&self) -> Result<Vec<SourceRow>, Refusal> {
        self.list_sources().await
    }

    async fn shaping(&self) -> Result<Vec<ShapingRow>, Refusal> {
        Ok(config::effective::effective(&self.config.load()))
    }

    async fn shaping_text(&self) -> Result<ShapingText, Refusal> {
        self.show_shaping().await
    }

    async fn try_shaping(&self, wish: ShapingWish) -> Result<ShapingChecked, Refusal> {
        Ok(self.check_shaping(&wish))
    }

    async fn set_shaping(&self, wish: ShapingWish) -> Result<ShapingText, Refusal> {
        self.apply_shaping(wish).await
    }

    async fn unset_shaping(&self, why: Reason) -> Result<ShapingText, Refusal> {
        self.undo_shaping(why).await
    }

    async fn operate(&self, verb: Verb, wish: QueueWish, by: &str) -> Result<QueueDone, Refusal> {
        self.operate_on_queue(verb, wish, by).await
    }

    async fn events(&self, filter: EventFilter) -> Result<EventPage, Refusal> {
        self.tell_events(filter).await
    }

    async fn queue(&self, filter: QueueFilter) -> Result<QueuePage, Refusal> {
        let member = filter.member.as_deref().map(|member| self.find(member)).transpose()?.map(|member| member.id);
        if filter.site.is_some() && filter.domain.is_some() {
            return Err(Refusal::Wrong("name a site or a domain, not both".to_owned()));
        }
        let domain = filter.domain.as_deref().or(filter.site.as_deref()).map(canonical_domain).transpose();
        let domain = domain.map_err(|error| Refusal::Wrong(format!("not a domain: {error}")))?.map(|domain| domain.into_owned());
        let limit = filter.limit.unwrap_or(PAGE_MAX);
        let after = filter.after.as_deref().map(|after| {
            from_hex(after).ok_or_else(|| Refusal::Wrong("`after` is not what a former page gave as `next`".to_owned()))
        });
        let (after, held) = (after.transpose()?, filter.held);
        let filter = Filter { domain, member, held };
        let read = blocking(self, move |daemon| daemon.parts.reader.list(&filter, after.as_deref(), limit)).await?;
        let page = read.map_err(unable)?;
        let directory = self.directory.load();
        let deliveries = page.entries.iter().map(|summary| view_delivery(&directory, summary)).collect();
        Ok(QueuePage { deliveries, more: page.next.is_some(), next: page.next.map(|next| hex(&next)) })
    }

    async fn queued(&self, id: &str) -> Result<QueuedMessage, Refusal> {
        let parsed = queue_id(id)?;
        let shown = blocking(self, move |daemon| daemon.parts.reader.show(parsed)).await?.map_err(unable)?;
        let shown = shown.ok_or_else(|| {
            Refusal::Unknown(format!("{id} is not in the queue (any more); `tradewind why {id}` tells what became of it"))
        })?;
        Ok(view_message(&self.directory.load(), &shown))
    }

    async fn actions(&self, filter: ActionFilter) -> Result<ActionPage, Refusal> {
        self.list_actions(filter).await
    }

    async fn action(&self, id: u64) -> Result<ActionShown, Refusal> {
        self.show_action(id).await
    }

    async fn end_action(&self, id: u64, wish: ActionWish, by: &str) -> Result<ActionRow, Refusal> {
        self.cancel_action(id, wish, by).await
    }

    async fn prolong_action(&self, id: u64, wish: ActionWish, by: &str) -> Result<ActionRow, Refusal> {
        self.extend_action(id, wish, by).await
    }

    async fn warmup(&self) -> Result<WarmupPage, Refusal> {
        self.list_climbs().await
    }

    async fn climb(&self, source: &str, provider: &str, filter: ClimbFilter) -> Result<ClimbShown, Refusal> {
        self.show_climb(source, provider, filter).await
    }

    async fn climb_steps(&self, filter: StepFilter) -> Result<Vec<StepRow>, Refusal> {
        self.list_climb_steps(filter).await
    }

    async fn steer_climb(&self, of: (&str, &str), verb: ClimbVerb, wish: WarmupWish, by: &str) -> Result<ClimbRow, Refusal> {
        self.steer(of, verb, wish, by).await
    }

    async fn source_health(&self) -> Result<Vec<SourceHealthRow>, Refusal> {
        self.list_source_health().await
    }

    async fn begin_audit(&self, row: AuditRow) -> Result<u64, Refusal> {
        self.write_audit(row).await
    }

    async fn end_audit(&self, end: AuditRow) -> Result<(), Refusal> {
        self.finish_audit(end).await
    }

    async fn audit_since(&self, about: &str, versions: &[&str]) -> Result<Vec<AuditRow>, Refusal> {
        self.list_audit_since(about, versions).await
    }

    async fn audit(&self, filter: AuditFilter) -> Result<AuditPage, Refusal> {
        self.list_audit(filter).await
    }

    async fn add_token(&self, token: AddToken, by: &str) -> Result<NewToken, Refusal> {
        self.make_token(token, by).await
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, Refusal> {
        Ok(self.list_tokens())
    }

    async fn revoke_token(&self, name: &str) -> Result<TokenRow, Refusal> {
        self.drop_token(name).await
    }

    fn hostname(&self) -> String {
        self.config.load().hostname.clone()
    }

    async fn status(&self) -> Result<Status, Refusal> {
        let counts = blocking(self, |daemon| daemon.parts.reader.counts()).await?.map_err(unable)?;
        let members = Operations::members(self).await?;
        let config = self.config.load();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: config.hostname.clone(),
            io: self.parts.io.clone(),
            members: members.len() as u64,
            members_admitted: members.iter().filter(|member| member.admitted).count() as u64,
            messages: counts.messages,
            deliveries: counts.deliveries,
            labeler: self.labeler_status(),
        })
    }

    async fn plans(&self) -> Result<Vec<PlanRow>, Refusal> {
        self.list_plans()
    }

    async fn plan(&self, name: &str) -> Result<PlanShown, Refusal> {
        self.show_plan(name).await
    }

    async fn try_plan(&self, name: &str, wish: PlanWish) -> Result<PlanChecked, Refusal> {
        Ok(self.check_plan(name, &wish))
    }

    async fn simulate_plan(&self, name: &str, wish: PlanWish) -> Result<Simulated, Refusal> {
        Daemon::simulate_plan(self, name, wish).await
    }

    async fn set_plan(&self, name: &str, wish: PlanWish) -> Result<PlanShown, Refusal> {
        self.apply_plan(name, wish).await
    }

    async fn unset_plan(&self, name: &str, why: Reason) -> Result<PlanShown, Refusal> {
        self.undo_plan(name, why).await
    }

    async fn credentials(&self, member: &str) -> Result<Vec<CredentialRow>, Refusal> {
        self.list_credentials(member)
    }

    async fn rotate_credential(&self, member: &str, id: u32) -> Result<NewSecret, Refusal> {
        self.renew_credential(member, id).await
    }

    async fn revoke_credential(&self, member: &str, id: u32) -> Result<CredentialRow, Refusal> {
        self.drop_credential(member, id).await
    }

    async fn sites(&self, filter: SitesFilter) -> Result<SitesPage, Refusal> {
        self.list_sites(filter).await
    }

    async fn site(&self, site: &str) -> Result<SiteShown, Refusal> {
        self.show_site(site).await
    }

    async fn replies(&self, filter: RepliesFilter) -> Result<RepliesPage, Refusal> {
        self.list_replies(filter).await
    }

    async fn overview(&self) -> Result<Overview, Refusal> {
        self.look_over().await
    }

    async fn newest_event(&self, seen: u64, wait: Duration) -> Result<u64, Refusal> {
        Ok(self.wait_for_news(seen, wait).await)
    }
}

#[cfg(test)]
#[path = "operations_tests.rs"]
pub(super) mod tests;
