//! Platform settings, in layers: the embedded `configs/default.toml`, `--settings` files, `TIDEMILL__SECTION__KEY` variables,
//! `--set section.key=value`. Later layers win. Unknown keys are errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Config, Environment, File, FileFormat, Map, Source, Value, ValueKind};
use serde::Deserialize;
use tidemill_core::{Clusters, Properties, parse_duration_ms, parse_size_bytes, shown_property};
use tidemill_runtime::{RunConfig, SealAt};

use crate::cli::SettingsArgs;
use crate::exit::{Code, Failure};

const DEFAULT: &str = include_str!("../configs/default.toml");

/// The settings of a process.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) state: Root,
    pub(crate) output: Root,
    pub(crate) admin: Admin,
    pub(crate) log: Log,
    pub(crate) cut: Cut,
    pub(crate) runtime: Runtime,
    /// Clusters by name, each with properties of librdkafka, in dotted keys or with underscores.
    #[serde(default)]
    kafka: BTreeMap<String, Map<String, Value>>,
}

/// `[state]`, `[output]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    pub(crate) root: PathBuf,
}

/// `[admin]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Admin {
    /// Empty: nothing is served.
    pub(crate) listen: String,
}

/// `[log]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
}

/// `log.format`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// `config` has no good message for a name that is none of an enum's.
impl TryFrom<String> for LogFormat {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match &*name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{name}` is neither `text` nor `json`")),
        }
    }
}

/// `log.level`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl TryFrom<String> for LogLevel {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match &*name {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(format!("`{name}` is none of `error`, `warn`, `info`, `debug`, `trace`")),
        }
    }
}

/// `[cut]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cut {
    interval: String,
}

/// `[runtime]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Runtime {
    queue: String,
    replay: String,
    state_memory: String,
    heartbeat: String,
    /// 0: as many as there are cores.
    pub(crate) compute_threads: usize,
}

/// How long a drain may stand still.
const DRAIN_MS: u64 = 30_000;
/// Each has a stack of its own; more than this is a mistake.
const COMPUTE_THREADS_MAX: usize = 1024;

/// A setting, for `tidemill settings`.
pub(crate) struct Origin {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) from: String,
}

impl Settings {
    /// All layers, checked.
    pub(crate) fn load(args: &SettingsArgs) -> Result<Self, Failure> {
        let layers = layers(args)?;
        let known = keys(&layers.iter().take(1).flat_map(|(_, values)| values.clone()).collect());
        for (layer, values) in &layers {
            let is_known = |key: &str| known.contains_key(key) || is_cluster_property(key);
            if let Some(key) = keys(values).keys().find(|key| !is_known(key)) {
                let message =
                    format!("{layer}: there is no setting `{key}`; there are: {}, kafka.NAME.PROPERTY", list(&known));
                return Err(Failure::new(Code::Config, message));
            }
        }
        let mut builder = Config::builder();
        for (_, values) in layers {
            builder = builder.add_source(Layer(values));
        }
        let settings = builder.build().and_then(Config::try_deserialize);
        let settings: Self = settings.map_err(|error| Failure::new(Code::Config, format!("settings: {error}")))?;
        settings.check()?;
        Ok(settings)
    }

    /// Checks what the types of the values don't.
    fn check(&self) -> Result<(), Failure> {
        let bad = |what: String| Err(Failure::new(Code::Config, format!("settings: {what}")));
        for (key, root) in [("state.root", &self.state.root), ("output.root", &self.output.root)] {
            if root.as_os_str().is_empty() {
                return bad(format!("`{key}`: it is empty; name a directory, or leave it out"));
            }
        }
        let threads = self.runtime.compute_threads;
        if threads > COMPUTE_THREADS_MAX {
            return bad(format!(
                "`runtime.compute_threads`: {threads} is too many; write a number up to {COMPUTE_THREADS_MAX}, or 0 for as many as there are cores"
            ));
        }
        self.run_config("x", false).map(drop)
    }

    /// What the runtime needs of them.
    pub(crate) fn run_config(&self, topology: &str, until_end: bool) -> Result<RunConfig, Failure> {
        let bad =
            |key: &'static str| move |error: String| Failure::new(Code::Config, format!("settings: `{key}`: {error}"));
        Ok(RunConfig {
            state_root: self.state_root(topology),
            output_root: self.output.root.clone(),
            reads: tidemill_runtime::Reads::All,
            until_end,
            seal_at: SealAt::default(),
            cut_interval_ms: parse_duration_ms(&self.cut.interval).map_err(bad("cut.interval"))?.max(1),
            lane_bytes: parse_size_bytes(&self.runtime.queue).map_err(bad("runtime.queue"))? as usize,
            state_memory_bytes: parse_size_bytes(&self.runtime.state_memory).map_err(bad("runtime.state_memory"))?,
            replay_bytes: parse_size_bytes(&self.runtime.replay).map_err(bad("runtime.replay"))?.max(1),
            drain_ms: DRAIN_MS,
            heartbeat_ms: parse_duration_ms(&self.runtime.heartbeat).map_err(bad("runtime.heartbeat"))?.max(100),
            clusters: Arc::new(self.clusters()),
            admin: None,
            host: Arc::new(tidemill_runtime::System),
        })
    }

    /// The clusters that sources and sinks connect to.
    pub(crate) fn clusters(&self) -> Clusters {
        let properties = |values: &Map<String, Value>| -> Properties {
            // No property has an underscore in its name, and a variable can have no dot.
            keys(values).into_iter().map(|(key, value)| (key.replace('_', "."), value)).collect()
        };
        Clusters { kafka: self.kafka.iter().map(|(name, values)| (name.clone(), properties(values))).collect() }
    }

    /// The state directory of a topology.
    pub(crate) fn state_root(&self, topology: &str) -> PathBuf {
        self.state.root.join(topology)
    }

    /// Every setting with the layer it comes from.
    pub(crate) fn origins(args: &SettingsArgs) -> Result<Vec<Origin>, Failure> {
        Self::load(args)?;
        let mut merged: BTreeMap<String, Origin> = BTreeMap::new();
        for (from, values) in layers(args)? {
            for (key, value) in keys(&values) {
                let value = if shows(&key, &value) { value } else { "(set)".to_owned() };
                merged.insert(key.clone(), Origin { key, value, from: from.clone() });
            }
        }
        Ok(merged.into_values().collect())
    }
}

/// A layer's name and what it says.
type Named = (String, Map<String, Value>);

/// All layers, in order.
fn layers(args: &SettingsArgs) -> Result<Vec<Named>, Failure> {
    let bad = |error: config::ConfigError| Failure::new(Code::Config, format!("settings: {error}"));
    let mut layers = vec![("default".to_owned(), File::from_str(DEFAULT, FileFormat::Toml).collect().map_err(bad)?)];
    for path in &args.files {
        layers.push((path.display().to_string(), read(path)?));
    }
    let variables = Environment::with_prefix("TIDEMILL").prefix_separator("__").separator("__");
    layers.push(("TIDEMILL__ variables".to_owned(), variables.collect().map_err(bad)?));
    for pair in &args.set {
        let layer = format!("--set {}", key_of(pair));
        let usage = || Failure::new(Code::Usage, format!("{layer}: it takes KEY=VALUE, such as output.root=/data"));
        let (key, value) = pair.split_once('=').ok_or_else(usage)?;
        // As in TOML, so that numbers and booleans are what they look like; anything else is text.
        let text = format!("{key} = {value}");
        let quoted = format!("{key} = {}", serde_json::Value::from(value));
        let parse = |text: &str| File::from_str(text, FileFormat::Toml).collect();
        // A password may look like a number, and is none.
        let values = if is_cluster_property(key) { parse(&quoted) } else { parse(&text).or_else(|_| parse(&quoted)) };
        // The parser's error would show the value.
        let values = values.map_err(|_| usage())?;
        layers.push((layer, values));
    }
    Ok(layers)
}

fn read(path: &Path) -> Result<Map<String, Value>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Code::Config, format!("can't read settings file {}: {error}", path.display())))?;
    let values = File::from_str(&text, FileFormat::Toml).collect();
    values.map_err(|error| {
        let error = without_source(&error.to_string(), &text);
        Failure::new(Code::Config, format!("settings file {}: {error}", path.display()))
    })
}

/// A parser's error without the lines of the file that it shows, if they may hold a password.
fn without_source(error: &str, text: &str) -> String {
    let shows = |line: &str| line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|');
    let kept = error.lines().filter(|line| !text.contains("kafka") || !shows(line));
    kept.collect::<Vec<_>>().join("\n")
}

/// Whether a key is that of a property of a cluster: its name can be anything that librdkafka knows.
fn is_cluster_property(key: &str) -> bool {
    key.strip_prefix("kafka.").is_some_and(|rest| rest.split_once('.').is_some_and(|(name, _)| !name.is_empty()))
}

/// Whether a value may be shown. Only clusters have secrets.
fn shows(key: &str, value: &str) -> bool {
    let property = key.strip_prefix("kafka.").and_then(|rest| rest.split_once('.'));
    property.is_none_or(|(_, name)| shown_property(name, value).is_some())
}

/// What of a `--set` is its key, for messages: what is behind it may be a password.
fn key_of(pair: &str) -> &str {
    let end = pair.find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)));
    &pair[..end.unwrap_or(pair.len())]
}

/// Dotted keys and values as text.
fn keys(values: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (key, value) in values {
        match &value.kind {
            ValueKind::Table(table) => {
                found.extend(keys(table).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            _ => {
                found.insert(key.clone(), value.to_string());
            }
        }
    }
    found
}

fn list(known: &BTreeMap<String, String>) -> String {
    known.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Values that were collected before.
#[derive(Clone, Debug)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(set: &[&str]) -> Result<Settings, Failure> {
        Settings::load(&SettingsArgs { files: Vec::new(), set: set.iter().map(|pair| (*pair).to_owned()).collect() })
    }

    #[test]
    fn an_unknown_key_is_an_error_that_lists_the_known_ones() {
        let error = load(&["output.rot=/x"]).unwrap_err();
        assert_eq!(error.code, Code::Config);
        assert!(error.message.contains("output.rot") && error.message.contains("output.root"), "{}", error.message);
    }

    #[test]
    fn set_wins_over_the_default_and_takes_text_without_quotes() {
        let settings = load(&["output.root=/data/out", "runtime.compute_threads=3"]).unwrap();
        assert_eq!(settings.output.root, Path::new("/data/out"));
        assert_eq!(settings.runtime.compute_threads, 3);
    }

    #[test]
    fn clusters_take_properties_with_underscores_or_dots_and_keep_them_as_they_are_written() {
        let settings = load(&["kafka.main.bootstrap_servers=a:1,b:2", "kafka.main.sasl.password=0123"]).unwrap();
        let clusters = settings.clusters();
        let main = clusters.kafka("main").unwrap();
        assert_eq!((main["bootstrap.servers"].as_str(), main["sasl.password"].as_str()), ("a:1,b:2", "0123"));
        let error = clusters.kafka("other").unwrap_err().to_string();
        assert!(error.contains("`other`") && error.contains("`main`"), "{error}");
        assert!(load(&["kafka.main=x"]).is_err());
    }

    #[test]
    fn empty_roots_and_threads_without_bound_are_refused() {
        for set in ["output.root=", "state.root=", "runtime.compute_threads=100000", "runtime.compute_threads=-1"] {
            let error = load(&[set]).unwrap_err();
            let (key, _) = set.split_once('=').unwrap();
            assert!(error.code == Code::Config && error.message.contains(key), "{}", error.message);
        }
        assert_eq!(load(&["runtime.compute_threads=1024"]).unwrap().runtime.compute_threads, 1024);
    }

    #[test]
    fn no_message_about_a_set_shows_what_may_be_a_secret() {
        for set in [
            "kafka.main.sasl_password hunter2",
            "kafka.main.sasl_password:hunter2",
            "kafka.main.sasl password=hunter2",
            "kafka.main=hunter2",
            "kafka=hunter2",
            "kafka.main.=hunter2",
        ] {
            let error = load(&[set]).unwrap_err();
            assert!(error.message.contains("kafka") && !error.message.contains("hunter2"), "{}", error.message);
        }
    }

    #[test]
    fn a_duration_that_is_none_names_its_key() {
        assert!(load(&["cut.interval=soon"]).unwrap_err().message.contains("cut.interval"));
    }
}
