//! `tidemill status`: asks the process that owns a state directory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use tidemill_runtime::{Owner, Status, owner_of};

use crate::exit::{Code, Failure};
use crate::output::print;
use crate::settings::Settings;
use crate::{table, terminal};

const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn run(settings: &Settings, topology: Option<&str>, json: bool) -> Result<(), Failure> {
    let root = &settings.state.root;
    let mut names: Vec<String> = match topology {
        Some(name) => vec![name.to_owned()],
        None => std::fs::read_dir(root)
            .map_err(|error| Failure::new(Code::Unavailable, format!("no state in {}: {error}", root.display())))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| settings.state_root(name).join("lock").exists() && !name.contains(".aside-"))
            .collect(),
    };
    names.sort();
    let (mut running, mut failures) = (0, Vec::new());
    for name in &names {
        let state = settings.state_root(name);
        let shown = if state.exists() {
            show(name, &state, json)
        } else {
            let message = format!("there is no state of a topology `{name}` in {}", root.display());
            Err(Failure::new(Code::Unavailable, message))
        };
        match shown {
            Ok(runs) => running += usize::from(runs),
            // The others may well answer.
            Err(failure) => failures.push(failure),
        }
    }
    match failures.first() {
        Some(first) => {
            let messages: Vec<&str> = failures.iter().map(|failure| failure.message.as_str()).collect();
            Err(Failure { code: first.code, message: messages.join("\n") })
        }
        None if running == 0 => Err(Failure::new(Code::Unavailable, "nothing is running")),
        None => Ok(()),
    }
}

/// The status of a topology that has to run.
pub(crate) fn ask(settings: &Settings, name: &str) -> Result<Status, Failure> {
    let owner = owner_of(&settings.state_root(name));
    let owner = owner.ok_or_else(|| Failure::new(Code::Unavailable, format!("{name} is not running")))?;
    ask_owner(name, owner)
}

/// What the process that owns a topology's state says of it.
pub(crate) fn ask_owner(name: &str, owner: Owner) -> Result<Status, Failure> {
    parsed(name, &fetched(name, owner)?)
}

/// Prints one topology's status; `false` when no process runs it.
fn show(name: &str, state: &Path, json: bool) -> Result<bool, Failure> {
    let Some(owner) = owner_of(state) else {
        let cut = tidemill_runtime::last_cut(state)?;
        if !json {
            let cut = cut.map_or("none".to_owned(), |cut| cut.to_string());
            print(format_args!("{name}: not running; its last cut is {cut}\n"))?;
        }
        return Ok(false);
    };
    let body = fetched(name, owner)?;
    if json {
        print(format_args!("{body}\n"))?;
        return Ok(true);
    }
    let status = parsed(name, &body)?;
    let columns = terminal::size(std::io::stdout()).map_or(usize::MAX, |size| size.columns);
    print(format_args!("{}\n", table::lines(&status, None, columns).join("\n")))?;
    Ok(true)
}

fn parsed(name: &str, body: &str) -> Result<Status, Failure> {
    serde_json::from_str(body)
        .map_err(|error| Failure::new(Code::Unavailable, format!("{name}: its status can't be read: {error}")))
}

/// What the process that owns a topology's state says of it, as JSON.
fn fetched(name: &str, owner: Owner) -> Result<String, Failure> {
    let Some(address) = owner.admin else {
        let message = format!("{name} runs as process {}, without an admin server (admin.listen is empty)", owner.pid);
        return Err(Failure::new(Code::Unavailable, message));
    };
    get(&address, "/status").map_err(|error| {
        Failure::new(
            Code::Unavailable,
            format!("{name} runs as process {}, but http://{address}/status does not answer: {error}", owner.pid),
        )
    })
}

/// The body of a page of our own admin server, which answers with `Connection: close` when asked to.
fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(body.to_owned())
}
