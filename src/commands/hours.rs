//! `tidemill hours`

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use tidemill_core::{Hour, format_time_ms};
use tidemill_runtime::{Status, owner_of};

use crate::cli::{Hours, HoursCommand, now_ms};
use crate::commands::status;
use crate::exit::{Code, Failure};
use crate::hours::{Report, State, Wanted, gather, grid, html, one};
use crate::output::{print, print_json};
use crate::settings::Settings;
use crate::terminal;

pub(crate) fn run(args: &Hours) -> Result<(), Failure> {
    if let Some(HoursCommand::Show { event_type, hour, json, settings }) = &args.command {
        return show(event_type, *hour, *json, &Settings::load(settings)?);
    }
    let wanted = Wanted {
        since_ms: args.which.since,
        until_ms: args.which.until,
        event_type: args.which.event_type.as_deref(),
        manifests: false,
    };
    let (report, faults) = look(&Settings::load(&args.settings)?, &wanted)?;
    if let Some(file) = &args.html {
        let failed = |error| Failure::new(Code::Unavailable, format!("can't write {}: {error}", file.display()));
        std::fs::write(file, html(&report)).map_err(failed)?;
    }
    if args.json {
        print_json(&report)?;
    } else if args.html.is_none() {
        let columns = std::io::stdout().is_terminal().then(|| terminal::size(std::io::stdout())).flatten();
        print(grid(&report, columns.map_or(usize::MAX, |size| size.columns)))?;
    }
    finish(&report, faults)
}

fn show(event_type: &str, start_ms: i64, json: bool, settings: &Settings) -> Result<(), Failure> {
    let wanted = Wanted {
        since_ms: Some(start_ms),
        until_ms: Some(start_ms + 1),
        event_type: Some(event_type),
        manifests: true,
    };
    let (report, faults) = look(settings, &wanted)?;
    if let Some(start) = report.starts_ms.first().filter(|start| **start != start_ms) {
        return Err(no_hour(Hour { start_ms: *start, width_ms: report.hour_ms }));
    }
    match json {
        true => print_json(&report)?,
        false => print(one(&report, start_ms))?,
    }
    finish(&report, faults)
}

/// A time was named at which no hour begins; it lies in this one.
pub(super) fn no_hour(lies_in: Hour) -> Failure {
    let (width_ms, begins) = (lies_in.width_ms, format_time_ms(lies_in.start_ms));
    Failure::new(
        Code::Usage,
        format!("no hour of {width_ms} ms begins then; the one that it lies in begins at {begins}"),
    )
}

/// The report, and how many directories could not be read, which are named by then.
fn look(settings: &Settings, wanted: &Wanted<'_>) -> Result<(Report, u64), Failure> {
    let (mut report, mut faults) = look_once(settings, wanted)?;
    if report.is_running && missing(&report) > 0 {
        // A cut may just have been made whose files are on their way.
        std::thread::sleep(Duration::from_secs(1));
        (report, faults) = look_once(settings, wanted)?;
    }
    Ok((report, faults))
}

fn look_once(settings: &Settings, wanted: &Wanted<'_>) -> Result<(Report, u64), Failure> {
    // A process that does not answer is one that does not run, for this purpose.
    read(settings, wanted, &|name, state| status::ask_owner(name, owner_of(state)?).ok())
}

/// What the output root of the settings holds; `ask` is asked for the status of a topology that may run. Says how many directories could not be read, which are
/// named by then.
pub(super) fn read(
    settings: &Settings,
    wanted: &Wanted<'_>,
    ask: &dyn Fn(&str, &Path) -> Option<Status>,
) -> Result<(Report, u64), Failure> {
    let mut faults = 0;
    let report = gather(&settings.output.root, wanted, now_ms(), ask, &mut |error| {
        faults += 1;
        eprintln!("tidemill: {error}");
    })?;
    Ok((report, faults))
}

fn missing(report: &Report) -> usize {
    report.types.iter().flat_map(|row| &row.hours).filter(|hour| hour.state == State::Missing).count()
}

fn finish(report: &Report, faults: u64) -> Result<(), Failure> {
    let missing = missing(report);
    match (faults, missing) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::new(Code::Fault, format!("{missing} hours are missing"))),
        _ => Err(Failure::new(
            Code::Fault,
            format!("{faults} directories could not be read; {missing} hours are missing"),
        )),
    }
}
