//! Getting the lock of a state directory that another process holds: by waiting for its end, or by bringing it about.
//!
//! The lock alone says who owns the directory. What is done here only makes it free.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::error::RunError;
use crate::state_dir::{StateLock, announced, described, lock_path};

/// Between two tries to get the lock.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// Between two log lines of one who waits.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// How long a process that was killed may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(30);

/// Why the process that the lock file names may be none that can be killed from here.
const ELSEWHERE: &str = "the holder runs on another machine or in another PID namespace (a container), or has only just started; stop it where it runs";

/// Waits until nobody holds the state directory, and takes it. Says at once and then once a minute who holds it. To give up, drop the
/// future.
///
/// # Errors
/// When the lock can't be tried, because the file can't be opened.
pub async fn wait_for_lock(root: &Path) -> Result<StateLock, RunError> {
    let mut said: Option<Instant> = None;
    loop {
        if let Some(lock) = StateLock::attempt(root)? {
            return Ok(lock);
        }
        if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            let (state, holder) = (root.display(), described(root));
            tracing::warn!(%state, holder, "waiting: another process owns the state directory; this one starts when that has ended");
            said = Some(Instant::now());
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// Takes the state directory; kills the process that holds it, if there is one, and waits up to 30 s for its end.
///
/// The process that the lock file names is killed only if the kernel says that it holds the lock.
///
/// # Errors
/// [`RunError::TakeOver`] when the holder can't be told for sure, may not be killed, or does not end; [`RunError::Locked`] when somebody
/// else was faster. Nothing has been opened then.
pub async fn take_over(root: &Path) -> Result<StateLock, RunError> {
    match StateLock::take(root) {
        Err(RunError::Locked { .. }) => {}
        taken => return taken,
    }
    let pid = kill_holder(root).map_err(|why| RunError::TakeOver { path: root.to_owned(), why })?;
    let begin = Instant::now();
    loop {
        if let Some(lock) = StateLock::attempt(root)? {
            return Ok(lock);
        }
        if announced(root).is_some_and(|owner| Pid::from_raw(owner.pid.cast_signed()) != Some(pid)) {
            return Err(RunError::Locked { path: root.to_owned(), owner: described(root) });
        }
        if begin.elapsed() >= GONE_MAX {
            let why = format!(
                "process {pid} was killed and still holds the lock after {} s: it hangs in the kernel, most likely on a disk that does \
                 not answer. See to that, and say --take-over again",
                GONE_MAX.as_secs()
            );
            return Err(RunError::TakeOver { path: root.to_owned(), why });
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// Kills the process that holds the lock; otherwise says why not.
fn kill_holder(root: &Path) -> Result<Pid, String> {
    let owner = announced(root).and_then(|owner| Pid::from_raw(owner.pid.cast_signed()));
    let pid = owner.ok_or_else(|| format!("the lock file does not say which process holds it: {ELSEWHERE}"))?;
    let gone = || format!("process {pid}, which the lock file names, is not there: {ELSEWHERE}");
    let other_user =
        || format!("process {pid} holds it and belongs to another user: say --take-over as that user, or as root");
    // From here on the handle means this very process, also when the number is given to another one.
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| match error {
        Errno::SRCH => gone(),
        error => format!("process {pid}, which the lock file names, can't be opened: {error}"),
    })?;
    let unseen = |error: io::Error| format!("whether process {pid} holds the lock can't be seen in /proc: {error}");
    if fs::read_link("/proc/self").map_err(unseen)? != Path::new(&getpid().to_string()) {
        return Err(format!("/proc belongs to another PID namespace, so process {pid} can't be looked up in it"));
    }
    let lock = fs::metadata(lock_path(root)).map_err(unseen)?;
    match holds(pid, &lock) {
        Ok(true) => {}
        Ok(false) => {
            return Err(format!("process {pid}, which the lock file names, does not hold the lock: {ELSEWHERE}"));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(gone()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(format!(
                "whether process {pid}, which the lock file names, holds the lock can't be seen, because it belongs to another user: \
                 say --take-over as that user, or as root"
            ));
        }
        Err(error) => return Err(unseen(error)),
    }
    match pidfd_send_signal(process, Signal::KILL) {
        Ok(()) => tracing::warn!(%pid, state = %root.display(), "killed the process that owned the state directory"),
        // It has just ended by itself.
        Err(Errno::SRCH) => {}
        Err(Errno::PERM) => return Err(other_user()),
        Err(error) => return Err(format!("process {pid} can't be killed: {error}")),
    }
    Ok(pid)
}

/// Whether a process holds a lock on a file. That it has the file open is not enough: so has one that waits for the lock.
fn holds(pid: Pid, lock: &Metadata) -> io::Result<bool> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    for entry in fs::read_dir(process.join("fd"))? {
        let name = entry?.file_name();
        // What can't be asked has been closed meanwhile.
        let Ok(file) = fs::metadata(process.join("fd").join(&name)) else { continue };
        if (file.dev(), file.ino()) != (lock.dev(), lock.ino()) {
            continue;
        }
        let Ok(info) = fs::read_to_string(process.join("fdinfo").join(&name)) else { continue };
        let is_held = |line: &str| line.starts_with("lock:") && line.contains(" FLOCK ") && line.contains(" WRITE ");
        if info.lines().any(is_held) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_lock_file_open_does_not_hold_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let lock = StateLock::take(dir.path()).unwrap();
        let metadata = fs::metadata(lock_path(dir.path())).unwrap();
        assert!(holds(getpid(), &metadata).unwrap());
        drop(lock);
        let _open = fs::File::open(lock_path(dir.path())).unwrap();
        assert!(!holds(getpid(), &metadata).unwrap());
    }
}
