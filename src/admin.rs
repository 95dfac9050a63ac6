//! The admin server: `/metrics`, `/live`, `/ready`, `/status`.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tidemill_runtime::{Handle, Status};

use crate::exit::{Code, Failure};

/// How often the status is copied into the metrics.
const EXPORT_EVERY: Duration = Duration::from_millis(500);
/// Where there are very many partitions: that takes no more than one part in so many of the time.
const EXPORT_PAUSE: u32 = 200;

/// A listener that is bound, so that its address is known before the topology starts.
pub(crate) struct Bound {
    listener: std::net::TcpListener,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    recorder: PrometheusHandle,
}

/// Binds the address of the settings; `None` when nothing is to be served.
pub(crate) fn bind(listen: &str) -> Result<Option<Bound>, Failure> {
    if listen.is_empty() {
        return Ok(None);
    }
    let failed = |error: &dyn std::fmt::Display| {
        let help = "choose another with --set admin.listen=HOST:PORT, or serve nothing with --set admin.listen=\"\"";
        Failure::new(Code::Unavailable, format!("can't listen on admin.listen = \"{listen}\": {error}; {help}"))
    };
    let listener = std::net::TcpListener::bind(listen).map_err(|error| failed(&error))?;
    listener.set_nonblocking(true).map_err(|error| failed(&error))?;
    let address = listener.local_addr().map_err(|error| failed(&error))?;
    let recorder = PrometheusBuilder::new().install_recorder().map_err(|error| failed(&error))?;
    tidemill_runtime::describe();
    Ok(Some(Bound { listener, address, recorder }))
}

/// Serves on a thread of its own until the process ends.
pub(crate) fn serve(bound: Bound, handle: Handle) {
    let serving = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async move {
            let exported = handle.clone();
            let recorder = bound.recorder.clone();
            tokio::spawn(async move {
                let mut exporter = tidemill_runtime::Exporter::default();
                loop {
                    let begin = std::time::Instant::now();
                    exporter.export(&exported.status());
                    recorder.run_upkeep();
                    tokio::time::sleep(EXPORT_EVERY.max(begin.elapsed() * EXPORT_PAUSE)).await;
                }
            });
            let ready = handle.clone();
            let rendered = handle.clone();
            let status = handle;
            let recorder = bound.recorder;
            let app = Router::new()
                .route(
                    "/metrics",
                    get(move || async move { recorder.render() + &tidemill_runtime::histograms(&rendered.status()) }),
                )
                .route("/live", get(|| async { "live\n" }))
                .route("/ready", get(move || async move { readiness(&ready) }))
                .route("/status", get(move || async move { Json::<Status>(status.status()) }));
            let Ok(listener) = tokio::net::TcpListener::from_std(bound.listener) else { return };
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "the admin server ended");
            }
        });
    };
    if let Err(error) = std::thread::Builder::new().name("admin".into()).spawn(serving) {
        tracing::error!(%error, "the admin server can't start");
    }
}

fn readiness(handle: &Handle) -> (StatusCode, String) {
    match handle.waits_for() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {what}\n")),
    }
}
