//! What of the actor's settings changes while it runs: the node, the configuration, the mode.
//!
//! Owns the order in which one mode's rules follow another's: the new ones are made first. Tests: the namespace tests.

use super::Actor;
use crate::backend::{self, BackendError, Options};
use crate::config::Config;
use crate::model::Node;

impl Actor {
    pub(super) fn set_node(&mut self, node: Node) {
        self.shared.lock().health.node_eligible = node.eligible;
        self.store.set_zone(node.zone.as_deref());
        let config = Config { zone: node.zone, node_ips: node.ips, pod_cidrs: node.pod_cidrs, ..self.config.clone() };
        self.reconfigure(config);
    }

    /// Goes over to another configuration. Where the rules depend on it, they are read and compared anew; another
    /// mode's rules are made before those of the last mode go.
    pub(super) fn reconfigure(&mut self, config: Config) {
        let fixed = self.config.clone();
        let config = Config { node_name: fixed.node_name, families: fixed.families, table: fixed.table, netns: fixed.netns, ..config };
        if config == self.config {
            return;
        }
        let options = |config: &Config| config.families.iter().map(|f| Options::of(config, *f)).collect::<Vec<_>>();
        let other_rules = config.mode != self.config.mode || options(&config) != options(&self.config);
        if other_rules && let Err(error) = self.reopen(&config) {
            tracing::error!(%error, mode = config.mode.name(), "cannot change the rules' form; they stay as they are");
            self.status.send_modify(|status| status.last_error = Some(error.to_string()));
            return;
        }
        self.store.set_node_ips(&config.node_ips);
        self.conntrack.set_node_ips(&config.node_ips);
        self.config = config;
        self.status.send_modify(|status| status.mode = self.config.mode.name());
        {
            let mut told = self.shared.lock();
            told.mode = self.config.mode.name();
            told.health.timeout = self.config.health_timeout;
            told.configuration.clone_from(&self.config.servers.configuration);
        }
        self.watch_addresses();
        self.refresh_addresses();
    }

    fn reopen(&mut self, config: &Config) -> Result<(), BackendError> {
        self.end_take_over();
        let planes = config.families.iter().map(|family| backend::open(config, *family)).collect::<Result<Vec<_>, _>>()?;
        let same_backend = config.mode.name() == self.config.mode.name();
        self.alarms.clear();
        // What an earlier life of this mode has left is the new one's.
        self.retired.retain(|(mode, _)| *mode != config.mode.name());
        for (lane, mut plane) in self.lanes.iter_mut().zip(planes) {
            plane.set_service_cidrs(&self.store.service_cidrs(plane.family()));
            let old = std::mem::replace(&mut lane.plane, plane);
            // The same backend's new rules replace the old ones where they lie.
            if !same_backend {
                self.retired.push((self.config.mode.name(), old));
            }
        }
        self.retry = None;
        self.watch_planes();
        Ok(())
    }

    /// Once everything is programmed: rules of other backends go.
    pub(super) fn delete_others(&mut self) {
        let take_over = std::mem::take(&mut self.take_over);
        if take_over {
            match backend::leavings(&self.config.mode) {
                Ok(planes) => self.retired.extend(planes),
                Err(error) => tracing::warn!(%error, "rules of another mode may be left in the kernel"),
            }
        }
        for (mode, mut plane) in std::mem::take(&mut self.retired) {
            match plane.retire(std::time::Instant::now()) {
                Ok(true) => {}
                Ok(false) => self.retired.push((mode, plane)),
                Err(error) => {
                    tracing::warn!(%error, family = %plane.family(), "cannot delete the rules of the last mode; trying again later");
                    self.retired.push((mode, plane));
                }
            }
        }
        if take_over {
            let keep = self.config.mode.clone();
            let take_over = move || {
                if let Err(error) = backend::cleanup(Some(&keep)) {
                    tracing::warn!(%error, "rules of other modes may be left in the kernel");
                }
            };
            // It runs commands, which no change of services is to wait for.
            match std::thread::Builder::new().name("take-over".into()).spawn(take_over) {
                Ok(thread) => self.taking_over = Some(thread),
                Err(error) => tracing::warn!(%error, "rules of other modes may be left in the kernel"),
            }
        }
    }

    /// Another mode's rules must not be made while they are looked for to be deleted.
    pub(super) fn end_take_over(&mut self) {
        if self.taking_over.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that looks for other modes' rules panicked");
        }
    }
}
