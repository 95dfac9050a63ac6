//! Work of a region beside its actors: on a thread of its own, where the host has any.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::RunError;
use crate::host::Host;
use crate::region::{NO_ROOM_MAX, Region};

/// Between two tries while the disk is full.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// Tries between two log lines.
const TELL_EVERY: u32 = 20;

/// Starts it. The receiver hears of its end.
pub(crate) fn start(
    host: &dyn Host,
    name: &str,
    work: impl Future<Output = ()> + Send + 'static,
) -> oneshot::Receiver<()> {
    let (over, is_over) = oneshot::channel();
    let work = async move {
        work.await;
        let _ = over.send(());
    };
    if host.has_threads() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("the system has room for another thread");
        let thread = std::thread::Builder::new().name(name.into());
        thread.spawn(move || runtime.block_on(work)).expect("the system can start a thread");
    } else {
        actix_rt::spawn(work);
    }
    is_over
}

/// Repeats what failed for want of room, until the region ends. A run to the end waits for 30 s only. `waits` says what
/// does not go on meanwhile.
pub(crate) async fn waiting_for_room<T>(
    region: &Region,
    waits: &str,
    mut step: impl FnMut() -> Result<T, RunError>,
) -> Result<T, RunError> {
    let begin = Instant::now();
    let mut tries = 0u32;
    loop {
        match step() {
            Err(RunError::Io { action, path, source })
                if !action.starts_with("sync")
                    && matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) =>
            {
                if tries.is_multiple_of(TELL_EVERY) {
                    let (region, path) = (&region.name, path.display());
                    tracing::error!(%region, %path, "the disk is full: {waits} and nothing is lost. Make room");
                }
                tries += 1;
                if region.has_ended() || region.config.until_end && begin.elapsed() > NO_ROOM_MAX {
                    return Err(RunError::Io { action, path, source });
                }
                tokio::time::sleep(TRY_EVERY).await;
            }
            other => return other,
        }
    }
}
