//! What somebody outside asks stages for: it comes with a barrier, and is answered when what it makes is published.

use std::sync::Arc;

use tidemill_core::Request;

use super::Coordinator;
use crate::region::{Region, RunConfig};
use crate::requests;

impl Coordinator {
    /// Removes a request when what it asked for is published.
    pub(super) fn answer(&mut self) {
        let region = &self.region;
        let Some((_, request)) = self.answered.take_if(|(cut, _)| region.is_published(*cut)) else { return };
        let RunConfig { host, state_root, output_root, .. } = &self.region.config;
        if let Err(error) = requests::done(&**host, state_root, output_root, &request) {
            let (error, id) = (error.chain(), &request.id);
            tracing::error!(error, id, "a request that was answered can't be removed; its stage will know it");
        }
    }

    /// What somebody outside asks a stage of the region for; one request at a time, and none before all is published
    /// that was sealed: a stage looks at what it has published.
    pub(super) fn request(&mut self) -> Option<Arc<Request>> {
        if self.answered.is_some() {
            return None;
        }
        let Region { config, stages, .. } = &*self.region;
        if self.region.unpublished().batches > 0 {
            if self.asked.is_due() {
                self.request_waits = self.asked.any(&*config.host, &config.state_root);
            }
            return None;
        }
        self.request_waits = false;
        let is_own = |name: &str| stages.iter().any(|stage| *self.region.node(stage.node).name == *name);
        self.asked.next(&*config.host, &config.state_root, &config.output_root, is_own).map(Arc::new)
    }
}
