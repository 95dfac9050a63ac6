//! `tidemill run`

use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidemill_core::Role;
use tidemill_runtime::{Ended, Handle, Registry, RunConfig, Running, SealAt, Short, StateLock, Status};
use tidemill_topology::Plan;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{Progress, Run, Seal};
use crate::commands::topology::read;
use crate::display;
use crate::exit::{Code, Failure};
use crate::output::print;
use crate::settings::{LogLevel, Settings};
use crate::{admin, logging, terminal};

/// Lets the process have as many files open as it may: shells start with 1,024, for the sake of old programs that use
/// `select`. Without them, files are closed and opened again.
fn allow_open_files() {
    let limits = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits });
}

pub(crate) fn run(registry: Registry, args: &Run) -> Result<(), Failure> {
    let mut settings = Settings::load(&args.settings)?;
    let plan = read(&registry, args.topology.as_deref()).plan()?;
    let console = plan.nodes.iter().find(|node| node.role == Role::Sink && node.kind.name == "console");
    if let (Progress::Json, Some(sink)) = (args.progress, console) {
        let message = format!(
            "--progress json and the sink `{}` (kind `console`) both write to the standard output; leave out one of them, or ask for --progress plain",
            sink.name
        );
        return Err(Failure::new(Code::Config, message));
    }
    // Lines of a console in the same terminal would tear the table.
    let is_shared = console.is_some() && std::io::stdout().is_terminal();
    let live = args.progress == Progress::Auto && std::io::stderr().is_terminal() && !is_shared;
    if live && matches!(settings.log.level, LogLevel::Info) {
        // The display says what the lines would.
        settings.log.level = LogLevel::Warn;
    }
    logging::start(&settings.log);
    allow_open_files();
    let until_end = args.until_end || args.topology.is_none();
    let mut config = settings.run_config(&plan.name, until_end)?;
    config.seal_at = match args.seal {
        Seal::End => SealAt::End,
        Seal::Watermark => SealAt::Watermark,
    };
    if args.fresh {
        set_aside(&config, args.yes)?;
    }
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(settings.runtime.compute_threads)
        .thread_name(|index| format!("compute-{index}"))
        .build_global();
    let progress = if live { Shown::Live } else { Shown::of(args.progress) };
    let system = actix_rt::System::new();
    let result = system.block_on(async move {
        let outputs = config.output_root.clone();
        // Before anybody can know of the run: from then on a signal is to be obeyed.
        let mut signals = Signals::new()?;
        let Some(lock) = lock(args, &config, &mut signals).await? else {
            tracing::info!("stopped before it had the state directory");
            return Ok(());
        };
        // Whoever had the lock had the address too.
        let bound = admin::bind(&settings.admin.listen)?;
        config.admin = bound.as_ref().map(|bound| bound.address.to_string());
        let running = start(plan, registry, config, lock)?;
        let handle = running.handle();
        if let Some(bound) = bound {
            admin::serve(bound, handle.clone());
        }
        let begin = Instant::now();
        let before = handle.status();
        let facts = display::Facts { resumed_from: running.resumed_from, was_finished: running.was_finished };
        let ended = watch(running, &handle, progress, signals).await;
        let after = handle.status();
        let ended = ended?;
        if args.progress != Progress::None {
            eprint!("{}", display::summary(&before, &after, begin.elapsed(), ended, &facts, &outputs));
        }
        let short = handle.short();
        match until_end && ended == Ended::Finished {
            true => complete(short, args.fail_on_dead_letters),
            false => Ok(()),
        }
    });
    // Workers sit in threads of their own; the state is safe, so there is nothing to wait for.
    result
}

/// Whether nothing that was read is missing in what is sealed.
fn complete(short: Short, fail_on_dead_letters: bool) -> Result<(), Failure> {
    let Short { letters, refused } = short;
    let message = match (refused, letters) {
        (1.., _) => format!(
            "{refused} events were refused by limits of the topology: the manifests of their hours say `refused`, and \
             `tidemill dead-letters list` says why"
        ),
        (0, 1..) if fail_on_dead_letters => {
            format!("{letters} events became dead letters: `tidemill dead-letters list` says why")
        }
        _ => return Ok(()),
    };
    Err(Failure::new(Code::Fault, message))
}

/// The lock of the state directory; `None` when it was asked to stop before it had it.
async fn lock(args: &Run, config: &RunConfig, signals: &mut Signals) -> Result<Option<StateLock>, Failure> {
    let root = &config.state_root;
    let locked = async {
        match (args.wait, args.take_over) {
            (true, _) => tidemill_runtime::wait_for_lock(root).await,
            (_, true) => tidemill_runtime::take_over(root).await,
            _ => StateLock::take(root),
        }
    };
    tokio::select! {
        locked = locked => Ok(Some(locked?)),
        () = signals.next() => Ok(None),
    }
}

fn start(plan: Plan, registry: Registry, config: RunConfig, lock: StateLock) -> Result<Running, Failure> {
    let name = plan.name.clone();
    let state = config.state_root.display().to_string();
    let running = tidemill_runtime::start_locked(plan, registry, config, lock)?;
    tracing::info!(topology = %name, state, resumed_from_cut = running.resumed_from, "running");
    Ok(running)
}

/// What is shown while it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Live,
    Plain,
    Json,
    Nothing,
}

impl Shown {
    fn of(progress: Progress) -> Self {
        match progress {
            Progress::Auto | Progress::Plain => Self::Plain,
            Progress::Json => Self::Json,
            Progress::None => Self::Nothing,
        }
    }

    fn period(self) -> Duration {
        match self {
            Self::Live => Duration::from_millis(200),
            Self::Plain => Duration::from_secs(10),
            Self::Json => Duration::from_secs(1),
            Self::Nothing => Duration::from_secs(3_600),
        }
    }
}

/// What asks the process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let failed = |error| Failure::new(Code::Internal, format!("signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {}, _ = self.interrupt.recv() => {} }
    }
}

/// Shows what is going on, obeys signals, and waits for the end.
async fn watch(running: Running, handle: &Handle, shown: Shown, mut signals: Signals) -> Result<Ended, Failure> {
    let mut tick = tokio::time::interval(shown.period());
    tick.tick().await;
    let mut screen = display::Screen::default();
    let mut asked = false;
    let end = running.wait();
    tokio::pin!(end);
    let ended = loop {
        tokio::select! {
            ended = &mut end => break ended,
            _ = tick.tick() => {
                let status = handle.status();
                match shown {
                    Shown::Live => screen.draw(&status),
                    Shown::Plain => screen.line(&status),
                    Shown::Json => json_line(&status),
                    Shown::Nothing => {}
                }
            }
            () = signals.next() => {
                if asked {
                    tracing::warn!("asked twice: stopping at once; the next run goes on from the last cut");
                    handle.abandon();
                    std::process::exit(Code::Stopped as i32);
                }
                asked = true;
                tracing::info!("stopping: draining, then a last cut; a second signal stops at once");
                handle.stop();
            }
        }
    };
    match shown {
        Shown::Live => {
            screen.draw(&handle.status());
            terminal::release();
        }
        Shown::Json => json_line(&handle.status()),
        Shown::Plain | Shown::Nothing => {}
    }
    Ok(ended?)
}

/// One line of progress. A run does not depend on whether anybody watches it.
fn json_line(status: &Status) {
    let _ = print(format_args!("{}\n", serde_json::to_string(status).unwrap_or_default()));
}

fn set_aside(config: &RunConfig, yes: bool) -> Result<(), Failure> {
    if !yes && config.state_root.exists() {
        let what = format!(
            "Set aside the state {} and the output {} that belongs to it?",
            config.state_root.display(),
            config.output_root.display()
        );
        if !confirmed(&what)? {
            return Err(Failure::new(Code::Stopped, "nothing was changed"));
        }
    }
    for (from, to) in tidemill_runtime::set_aside(&config.state_root, &config.output_root)? {
        eprintln!("set aside: {} is now {}", from.display(), to.display());
    }
    Ok(())
}

fn confirmed(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            Code::Usage,
            "--fresh asks before it sets anything aside; say --yes where nobody can answer",
        ));
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::new(Code::Unavailable, format!("no answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
