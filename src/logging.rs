//! Logs, on standard error.

use tracing_subscriber::filter::LevelFilter;

use crate::settings::{Log, LogFormat, LogLevel};
use crate::terminal::LogLines;

/// Starts logging. A second call does nothing.
pub(crate) fn start(log: &Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_writer(|| LogLines);
    let _ = match log.format {
        LogFormat::Text => {
            subscriber.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    // A panic in stage code is caught and reported with the stage; what is printed here says where it was.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text =
            payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        tracing::warn!(place, "a panic: {}", text.unwrap_or("no message"));
    }));
}
