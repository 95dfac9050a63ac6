//! The command line: what can be asked for, and who answers.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidemill_core::{parse_duration_ms, parse_time_ms};
use tidemill_runtime::Registry;

use crate::commands;
use crate::exit::{Code, Failure};
use crate::hours::hour_start_ms;
use crate::settings::Settings;

/// Event-delivery stream processor: a TOML topology becomes supervised actors that write sealed hourly Avro.
#[derive(Parser, Debug)]
#[command(name = "tidemill", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a topology; without one, the embedded quickstart, to its end.
    Run(Run),
    /// Check topologies and print every error at once; exit 78 when there are any.
    Check(Check),
    /// Print a topology's graph.
    Graph(Graph),
    /// Print the kinds of sources, stages and sinks with their options.
    Kinds {
        /// One kind only.
        kind: Option<String>,
    },
    /// Print a JSON schema of topology files, for editors.
    Schema,
    /// Check that the files of every sealed hour are what their manifests say; exit 1 when not.
    Verify(Verify),
    /// Write generated listening events, and the truth about them, to files.
    Generate(Generate),
    /// Print an Avro file as JSON lines.
    Cat {
        /// The file.
        file: PathBuf,
        /// Print at most this many records.
        #[arg(long)]
        limit: Option<u64>,
    },
    /// Look at dead letters: what could not be dealt with, and why.
    ///
    /// They are read from the files of sealed hours, so the newest ones are not there yet: an hour of dead letters is sealed a minute
    /// after its end, or at the end of a run with --until-end.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Show what each stage counted of sealed hours, beside what is in their files; exit 1 when they differ.
    ///
    /// Everything is read from manifests in the output root of the settings. That the files are what their manifests say is checked by `verify`.
    Audit(Audit),
    /// Show hours by type: open, sealed, revised, overdue or missing; exit 1 when one is missing.
    ///
    /// Published hours are read from the output root of the settings. What is open is read from the state that the output root belongs to, when it is on
    /// this machine, and what open hours wait for from the process that runs the topology.
    Hours(Hours),
    /// Show what producers have sent of sealed hours, which of their events are missing, and whom hours were sealed without.
    ///
    /// Everything is read from manifests in the output root of the settings. Events are accounted for where the topology has a stage `accounts`.
    Producers(Producers),
    /// Make a published hour once more from its input, with today's topology, and publish it as the hour's next revision.
    ///
    /// The same part of the input is read again: up to the positions that the hour's last revision was sealed at. With the same topology the result is the
    /// same; else the differences are shown. The process that runs the topology publishes it, or this one does when there is none.
    Reprocess(Reprocess),
    /// Print each setting, its value, and where it came from.
    Settings(SettingsArgs),
    /// Print what the running process of a topology is doing.
    Status {
        /// Name of the topology; all of the state root when left out.
        topology: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Look at a running topology for two seconds, and name what the rest of it waits for.
    WhySlow {
        /// Name of the topology.
        topology: String,
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

/// Where settings come from, beyond the embedded default and `TIDEMILL__...` variables.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct SettingsArgs {
    /// A settings file; later ones win.
    #[arg(id = "settings", long = "settings", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// One setting, such as `output.root=/data/out`; wins over everything.
    #[arg(id = "set", long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// `tidemill run`
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The topology file.
    pub(crate) topology: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Stop at the end of the input, and seal the hours that are open.
    #[arg(long)]
    pub(crate) until_end: bool,
    /// With --until-end: when hours are sealed. At the end, no event that is read is late because of another; on the
    /// way, memory and disk are freed earlier.
    #[arg(long, value_enum, default_value_t = Seal::End, requires = "until_end")]
    pub(crate) seal: Seal,
    /// With --until-end: exit with 1 when it put events aside as dead letters.
    #[arg(long, requires = "until_end")]
    pub(crate) fail_on_dead_letters: bool,
    /// Set the state and the output that belongs to it aside, and start afresh.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// With --fresh: do not ask.
    #[arg(long, requires = "fresh")]
    pub(crate) yes: bool,
    /// While another process runs the topology, stand by; start when it has ended.
    #[arg(long, conflicts_with_all = ["take_over", "fresh"])]
    pub(crate) wait: bool,
    /// When another process of this machine runs the topology, kill it (SIGKILL), and go on at its last cut.
    #[arg(long, conflicts_with = "fresh")]
    pub(crate) take_over: bool,
    /// What to show meanwhile.
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    pub(crate) progress: Progress,
}

/// When a run to the end seals hours.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    /// When all input is read.
    End,
    /// As watermarks pass, while it is read.
    Watermark,
}

/// What `run` shows while it runs.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A live display on a terminal, else a line every ten seconds.
    Auto,
    /// A line every ten seconds.
    Plain,
    /// The status as a JSON line every second, on standard output; not together with a sink `console`, which writes there too.
    Json,
    /// Nothing.
    None,
}

/// `tidemill check`
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The topology files.
    #[arg(required = true)]
    pub(crate) topologies: Vec<PathBuf>,
    /// Diagnostics as a JSON array.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `tidemill graph`
#[derive(Args, Debug)]
pub(crate) struct Graph {
    /// The topology file.
    pub(crate) topology: PathBuf,
    /// The language to draw it in.
    #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid)]
    pub(crate) format: GraphFormat,
}

/// Languages of graphs.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum GraphFormat {
    /// Mermaid flowchart.
    Mermaid,
    /// Graphviz DOT.
    Dot,
}

/// `tidemill verify`
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// The output root.
    pub(crate) dir: PathBuf,
    /// The report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which hours are looked at.
#[derive(Args, Debug)]
pub(crate) struct WhichHours {
    /// Only hours that end after this time: `24h` ago, or `2025-03-01T10:15:00Z`. Without it, the newest 24 hours that there are.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<i64>,
    /// Only hours that begin before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<i64>,
    /// Only those of this event type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
}

/// `tidemill audit`
#[derive(Args, Debug)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) which: WhichHours,
    /// As JSON, with ids and positions.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

/// `tidemill producers`
#[derive(Args, Debug)]
pub(crate) struct Producers {
    /// Only this hour, by its start in UTC, such as 2025-03-01T10. Without it, the newest 24 hours that there are.
    #[arg(long, value_parser = hour_start_ms)]
    pub(crate) hour: Option<i64>,
    /// Only those of this event type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// Those, too, of which nothing is missing.
    #[arg(long)]
    pub(crate) all: bool,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

/// `tidemill reprocess`
#[derive(Args, Debug)]
pub(crate) struct Reprocess {
    /// The topology file.
    pub(crate) topology: PathBuf,
    /// The start of the hour in UTC, such as 2025-03-01T10.
    #[arg(long, value_parser = hour_start_ms)]
    pub(crate) hour: i64,
    /// Only this event type; without it, all that the hour has.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// Say what would be different, and publish nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Publish it even when events that are published are not there any more, or rows of aggregates have other values.
    #[arg(long)]
    pub(crate) replace: bool,
    /// How far before the hour to begin reading where a source can begin by time (Kafka); without it, as far as `dedup` may know an event from.
    #[arg(long, value_name = "DURATION", value_parser = duration_ms)]
    pub(crate) lead: Option<i64>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

/// `tidemill hours`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Hours {
    #[command(subcommand)]
    pub(crate) command: Option<HoursCommand>,
    #[command(flatten)]
    pub(crate) which: WhichHours,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the grid to this file, as an HTML page that needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

#[derive(Subcommand, Debug)]
pub(crate) enum HoursCommand {
    /// Tell everything about one hour: its revisions, or what it waits for.
    Show {
        /// The event type.
        event_type: String,
        /// The start of the hour in UTC, such as 2025-03-01T10.
        #[arg(value_parser = hour_start_ms)]
        hour: i64,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

/// `tidemill dead-letters`
#[derive(Subcommand, Debug)]
pub(crate) enum DeadLetters {
    /// Count the dead letters of sealed hours by stage, reason, type and source.
    List {
        /// The output root. Hours that are not sealed are not read.
        output_root: PathBuf,
        #[command(flatten)]
        wanted: WantedLetters,
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Print single dead letters of sealed hours as JSON lines, those of the newest files first.
    ///
    /// `payload` is what was received: its text when `payload_encoding` is `utf-8`, hex digits when it is `hex`. `payload_length` is its
    /// full length in bytes: of what is longer than `max_event`, only the beginning is kept.
    Show {
        /// The output root. Hours that are not sealed are not read.
        output_root: PathBuf,
        #[command(flatten)]
        wanted: WantedLetters,
        /// Print at most this many letters.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Have dead letters of sealed hours dealt with again, each of them once: by the process that runs the topology, else by its next run.
    ///
    /// An event is parsed again, and enters at the stage or sink that refused it. What refuses it again makes another letter of it, which
    /// can be replayed like the first.
    Replay {
        /// The topology file.
        topology: PathBuf,
        #[command(flatten)]
        wanted: WantedLetters,
        /// Say what would be replayed, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

/// Which dead letters are asked for.
#[derive(Args, Debug)]
pub(crate) struct WantedLetters {
    /// Directory of the dead letters below the output root, where the topology's sink `dead_letters` has a path of its own.
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    /// Only those of this stage or sink.
    #[arg(long)]
    pub(crate) stage: Option<String>,
    /// Only those with this reason, such as `malformed`.
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Only those of this event type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// Only what arrived at this time or later: `24h` ago, or `2025-03-01T10:15:00Z`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<i64>,
    /// Only what arrived before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<i64>,
}

/// A duration, in milliseconds.
fn duration_ms(text: &str) -> Result<i64, String> {
    parse_duration_ms(text).map(|ms| i64::try_from(ms).unwrap_or(i64::MAX))
}

/// A moment, in milliseconds since 1970, as how long it is ago or as a time.
fn moment(text: &str) -> Result<i64, String> {
    match (parse_duration_ms(text), parse_time_ms(text)) {
        (Ok(ago), _) => Ok(now_ms().saturating_sub_unsigned(ago)),
        (_, Ok(time)) => Ok(time),
        (Err(duration), Err(time)) => Err(format!("{duration}; {time}")),
    }
}

pub(crate) fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// `tidemill generate`
#[derive(Args, Debug)]
pub(crate) struct Generate {
    /// Lines to write.
    #[arg(long)]
    pub(crate) events: u64,
    /// Seed: the same one gives the same lines, for ever.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Directory to write to: the files, truth.json and the schema; with --kafka, the latter two.
    #[arg(long, required_unless_present = "kafka")]
    pub(crate) out: Option<PathBuf>,
    /// Send the lines to a Kafka cluster of the settings instead of files.
    #[arg(long, value_name = "CLUSTER", requires = "topic", conflicts_with_all = ["files", "compression"])]
    pub(crate) kafka: Option<String>,
    /// Topic to send to; it is made if it is not there.
    #[arg(long, requires = "kafka")]
    pub(crate) topic: Option<String>,
    /// Partitions of the topic; the lines go to them in turn.
    #[arg(long, requires = "kafka", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub(crate) partitions: i32,
    /// Settings, for the cluster's addresses.
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Share of events that are sent twice.
    #[arg(long, default_value_t = 0.02)]
    pub(crate) duplicates: f64,
    /// Hours of event time.
    #[arg(long, default_value_t = 3)]
    pub(crate) hours: u32,
    /// How far an event may be behind those before it, such as `30s`.
    #[arg(long, default_value = "30s")]
    pub(crate) disorder: String,
    /// Lines a second; 0 is as fast as possible.
    #[arg(long, default_value_t = 0)]
    pub(crate) rate: u64,
    /// Files to spread the lines over.
    #[arg(long, default_value_t = 1)]
    pub(crate) files: usize,
    /// Compression of the files.
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub(crate) compression: Compression,
}

/// Compressions of generated files.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Compression {
    /// Plain text.
    None,
    /// gzip
    Gzip,
    /// zstd
    Zstd,
}

/// Parses the arguments and does what they say.
pub(crate) fn run(registry: Registry, args: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let code = if error.use_stderr() { Code::Usage } else { Code::Done };
            return Err(Failure::silent(code));
        }
    };
    match cli.command {
        Command::Run(args) => commands::run::run(registry, &args),
        Command::Check(args) => commands::check::run(&registry, &args),
        Command::Graph(args) => commands::graph::run(&registry, &args),
        Command::Kinds { kind } => commands::kinds::run(&registry, kind.as_deref()),
        Command::Schema => commands::kinds::schema(&registry),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Cat { file, limit } => commands::cat::run(&file, limit),
        Command::DeadLetters(DeadLetters::List { output_root, wanted, json }) => {
            commands::dead_letters::list(&output_root, &wanted, json)
        }
        Command::DeadLetters(DeadLetters::Show { output_root, wanted, limit }) => {
            commands::dead_letters::show(&output_root, &wanted, limit)
        }
        Command::DeadLetters(DeadLetters::Replay { topology, wanted, dry_run, settings }) => {
            commands::replay::run(&registry, &topology, &wanted, dry_run, &Settings::load(&settings)?)
        }
        Command::Audit(args) => commands::audit::run(&args),
        Command::Hours(args) => commands::hours::run(&args),
        Command::Producers(args) => commands::producers::run(&args),
        Command::Reprocess(args) => commands::reprocess::run(&registry, &args),
        Command::Settings(args) => commands::settings::run(&args),
        Command::Status { topology, json, settings } => {
            commands::status::run(&Settings::load(&settings)?, topology.as_deref(), json)
        }
        Command::WhySlow { topology, settings } => commands::why_slow::run(&Settings::load(&settings)?, &topology),
    }
}
