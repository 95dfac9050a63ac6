//! A place for each test to run the binary in, and Python for readers that are not ours.

pub(crate) mod admin;
mod bounded;
pub(crate) mod inside;
mod java;
pub(crate) mod kafka;
mod plays;
pub(crate) mod registry;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

pub(crate) use bounded::{end_of, finish, json_lines, signal, stop, wait_for};
pub(crate) use plays::{HOUR, assert_each_once, lines, manifests};

/// A temporary directory with a state and an output of its own.
pub(crate) struct Place {
    dir: PathBuf,
    /// Removed with it, unless it is another process's.
    _own: Option<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let own = tempfile::tempdir().expect("a temporary directory");
        Self { dir: own.path().to_owned(), _own: Some(own) }
    }

    /// The place of the test that started this process.
    pub(crate) fn of_parent(dir: PathBuf) -> Self {
        Self { dir, _own: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// Adds to a file, which need not be there.
    pub(crate) fn append(&self, name: &str, text: &str) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(self.path(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("appended");
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("below the place")).expect("directories");
        std::fs::write(&path, text).expect("a file is written");
        path
    }

    /// `tidemill` with arguments, in this place.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.current_dir(&self.dir).args(args).stdin(Stdio::null());
        command.env_remove("TIDEMILL_FAILPOINT");
        command
    }

    /// Runs `tidemill` to its end.
    pub(crate) fn tidemill(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// `tidemill run` with no admin server, no display, and its state and output in this place.
    pub(crate) fn run_command(&self, args: &[&str]) -> Command {
        let mut command =
            self.command(&["run", "--progress", "none", "--set", "admin.listen=", "--set", "log.level=warn"]);
        command.args(args);
        command
    }

    /// Starts a run of `plays.toml` that follows its input, with an admin server at some port.
    pub(crate) fn follow(&self, more: &[&str]) -> Child {
        let args =
            ["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0", "--set", "log.level=warn"];
        self.command(&args).args(more).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs")
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.run_command(args).output().expect("the binary runs")
    }
}

/// Standard output and error, for messages.
pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

#[track_caller]
pub(crate) fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
}

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program of `tests/audit` with Python and the packages that it needs, which are installed below `target` once.
pub(crate) fn python(script: &str, args: &[&str]) -> Output {
    python_command(script).args(args).output().expect("python runs")
}

/// The same, to be given arguments and input.
pub(crate) fn python_command(script: &str) -> Command {
    let mut command = Command::new(interpreter());
    command.arg(root().join("tests/audit").join(script));
    command
}

fn interpreter() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let requirements = root().join("tests/audit/requirements.txt");
        let wanted = std::fs::read_to_string(&requirements).expect("requirements");
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
        let installed = venv.join("requirements.txt");
        if std::fs::read_to_string(&installed).ok().as_ref() != Some(&wanted) {
            let done = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).status();
            assert!(
                done.is_ok_and(|status| status.success()),
                "the tests read files back with Python: install python3 (3.9 or later) with its venv module"
            );
            let pip = Command::new(venv.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
                .arg(&requirements)
                .output()
                .expect("pip runs");
            assert!(pip.status.success(), "the Python packages can't be installed:\n{}", said(&pip));
            std::fs::write(&installed, wanted).expect("a note of what is installed");
        }
        venv.join("bin/python")
    })
}
