//! Topologies that run in the test's own process, so that it can plug in kinds of its own.

use std::time::Duration;

use tidemill_runtime::{Ended, Handle, Registry, RunConfig, RunError, SealAt, Status};

use crate::Place;
use crate::process::DEADLINE;

impl Place {
    /// How topologies run in this place: with short cuts and little in flight.
    pub fn config(&self, until_end: bool) -> RunConfig {
        RunConfig {
            state_root: self.path("state"),
            output_root: self.out(),
            reads: tidemill_runtime::Reads::All,
            until_end,
            seal_at: SealAt::default(),
            cut_interval_ms: 5,
            lane_bytes: 1 << 16,
            replay_bytes: 1 << 18,
            state_memory_bytes: 64 << 20,
            drain_ms: 30_000,
            heartbeat_ms: 60_000,
            clusters: Default::default(),
            admin: None,
            host: std::sync::Arc::new(tidemill_runtime::System),
        }
    }

    /// Runs a topology of this place; `during` looks at it while it runs, and may stop it.
    #[track_caller]
    pub fn run_inside(
        &self,
        topology: &str,
        registry: &Registry,
        config: RunConfig,
        during: impl AsyncFnOnce(&Handle),
    ) -> Result<(Ended, Status), RunError> {
        let path = self.path(topology);
        let text = std::fs::read_to_string(&path).expect("the topology");
        let loaded = tidemill_topology::load(&text, &path, registry, &|path| std::fs::read_to_string(path));
        let said: Vec<String> = loaded.diagnostics.iter().map(|found| found.render(&text, false)).collect();
        let plan = loaded.plan.unwrap_or_else(|| panic!("{}", said.join("\n")));
        actix_rt::System::new().block_on(async {
            let running = tidemill_runtime::start(plan, registry.clone(), config)?;
            let handle = running.handle();
            let both = async { tokio::join!(during(&handle), running.wait()).1 };
            let ended = tokio::time::timeout(DEADLINE, both).await;
            let ended = ended.unwrap_or_else(|_| panic!("it hangs: {:#?}", handle.status()))?;
            Ok((ended, handle.status()))
        })
    }
}

/// Waits until something holds of a running topology.
pub async fn until(handle: &Handle, mut holds: impl FnMut(&Status) -> bool) {
    while !holds(&handle.status()) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
