//! Processes that must come to an end, and do not outlive their test.

use std::io::Write;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::needs;

/// Far longer than anything in a test takes: beyond it, something hangs.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Number of SIGKILL, as an exit status names it.
pub const KILLED: i32 = 9;

/// A running process. It is killed when this is dropped.
pub struct Process {
    /// `None` once it has been waited for.
    child: Option<Child>,
}

impl Process {
    /// Starts a program. What the command does not redirect is inherited.
    ///
    /// # Panics
    /// When the program can't be run.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| {
            let program = command.get_program().display().to_string();
            panic!("{program} can't be run: {error}{}", needs::hint(&program))
        });
        Self { child: Some(child) }
    }

    /// The same with no input, and output that [`Self::end`] returns.
    ///
    /// # Panics
    /// When the program can't be run.
    #[track_caller]
    pub fn piped(command: &mut Command) -> Self {
        Self::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// The same with no input and no output, and a log that [`Self::end`] returns.
    ///
    /// # Panics
    /// When the program can't be run.
    #[track_caller]
    pub fn quiet(command: &mut Command) -> Self {
        Self::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("a process is waited for once")
    }

    /// Its process id.
    ///
    /// # Panics
    /// Never: a process that was waited for is gone.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("a process is waited for once").id()
    }

    /// How it ended; `None` while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child().try_wait().expect("a child can be asked")
    }

    /// Asserts that it still runs.
    ///
    /// # Panics
    /// When it has ended.
    #[track_caller]
    pub fn assert_runs(&mut self) {
        assert_eq!(self.status(), None, "it has ended");
    }

    /// Its standard output, where that is a pipe. Whoever takes it has to read it.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child().stdout.take()
    }

    /// Its standard error, where that is a pipe. Whoever takes it has to read it.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child().stderr.take()
    }

    /// Sends a signal. One that has ended already takes no notice.
    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_raw(self.id().cast_signed()).expect("a process id is positive");
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Waits for its end, and returns what it wrote to its pipes.
    ///
    /// # Panics
    /// When it does not end within [`DEADLINE`]; then it is killed.
    #[track_caller]
    pub fn end(mut self) -> Output {
        let (done, waiting) = channel::<()>();
        let id = self.id();
        let child = self.child.take().expect("a process is waited for once");
        let watch = std::thread::spawn(move || {
            let hangs = waiting.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout);
            if hangs && let Some(pid) = rustix::process::Pid::from_raw(id.cast_signed()) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            hangs
        });
        let output = child.wait_with_output().expect("its output can be read");
        drop(done);
        let hung = watch.join().expect("the watch does not panic");
        assert!(!hung, "it hangs: {}", printed(&output));
        output
    }

    /// Ends it as an operator does, by SIGTERM, and asserts that it ends with 0.
    ///
    /// # Panics
    /// When it has ended before, ends otherwise, or not at all.
    #[track_caller]
    pub fn stop(mut self) {
        self.assert_runs();
        self.signal(Signal::TERM);
        assert_exit(&self.end(), 0);
    }

    /// `kill -9`; returns how it ended.
    pub fn kill(self) -> Output {
        self.signal(Signal::KILL);
        self.end()
    }

    /// Highest resident memory so far in KiB; `None` once it has ended.
    #[must_use]
    pub fn peak_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Waits for its end, however long that takes, and looks at what it takes meanwhile.
    #[must_use]
    pub fn measure(mut self) -> Usage {
        let (mut peak, mut ticks) = (0, 0);
        loop {
            // Both only grow: the last that can be read are those of all but the very end.
            peak = self.peak_kib().unwrap_or(peak);
            ticks = cpu_ticks(self.id()).unwrap_or(ticks);
            if let Some(status) = self.status() {
                return Usage { status, peak_kib: peak, cpu_ticks: ticks };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its state, as the letter of `/proc/PID/stat`: `T` is stopped. `None` once it has ended.
    #[must_use]
    pub fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).ok()?;
        // The name is in parentheses and may hold anything.
        stat.rsplit_once(") ")?.1.chars().next()
    }
}

/// What a process took until its end.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// How it ended.
    pub status: ExitStatus,
    /// Highest resident memory in KiB.
    pub peak_kib: u64,
    /// CPU time in hundredths of a second.
    pub cpu_ticks: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// CPU time of a process so far, in hundredths of a second; `None` once it has ended.
#[must_use]
pub fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Runs a command to its end.
///
/// # Panics
/// When it can't be run, or does not end within [`DEADLINE`].
#[track_caller]
pub fn finish(command: &mut Command) -> Output {
    Process::piped(command).end()
}

/// Runs a tool to its end, with some input.
///
/// # Panics
/// When it can't be run, does not read its input, or does not end within [`DEADLINE`].
#[track_caller]
pub fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut stdin = process.child().stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || stdin.write_all(input));
        let output = process.end();
        writer.join().expect("the writer does not panic").expect("it reads its input");
        output
    })
}

/// Asks until there is an answer.
///
/// # Panics
/// When there is none within [`DEADLINE`].
#[track_caller]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < DEADLINE, "never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Exit status, standard output and error, for messages.
#[must_use]
pub fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Asserts how a process ended.
///
/// # Panics
/// When it ended otherwise; the message holds what it printed.
#[track_caller]
pub fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", printed(output));
}

/// Runs one call for each case, all at once: most of the time they wait for the disk.
pub fn side_by_side<T: Sync>(cases: &[T], run: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| run(case));
        }
    });
}
