//! A place for each test to run the binary in.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::Process;

/// A temporary directory with a state and an output of its own.
pub struct Place {
    dir: PathBuf,
    /// Removed with it, unless it is another process's.
    _own: Option<tempfile::TempDir>,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// An empty directory, which is removed with this value.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn new() -> Self {
        let own = tempfile::tempdir().expect("a temporary directory");
        Self { dir: own.path().to_owned(), _own: Some(own) }
    }

    /// The place of the test that started this process.
    #[must_use]
    pub fn of_parent(dir: PathBuf) -> Self {
        Self { dir, _own: None }
    }

    /// A path in this place.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The output root.
    #[must_use]
    pub fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// Adds to a file, which need not be there.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn append(&self, name: &str, text: &str) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(self.path(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("appended");
    }

    /// Writes a file, with the folders that it is in.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("below the place")).expect("directories");
        std::fs::write(&path, text).expect("a file is written");
        path
    }

    /// `tidemill` with arguments, in this place.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.current_dir(&self.dir).args(args).stdin(Stdio::null());
        command.env_remove("TIDEMILL_FAILPOINT");
        command
    }

    /// Runs `tidemill` to its end, however long that takes.
    ///
    /// # Panics
    /// When it can't be run.
    #[must_use]
    pub fn tidemill(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// `tidemill run` with no admin server, no display, and its state and output in this place.
    #[must_use]
    pub fn run_command(&self, args: &[&str]) -> Command {
        let mut command =
            self.command(&["run", "--progress", "none", "--set", "admin.listen=", "--set", "log.level=warn"]);
        command.args(args);
        command
    }

    /// Starts a run of `plays.toml` that follows its input, with an admin server at some port.
    ///
    /// # Panics
    /// When it can't be run.
    #[track_caller]
    #[must_use]
    pub fn follow(&self, more: &[&str]) -> Process {
        let args =
            ["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0", "--set", "log.level=warn"];
        Process::quiet(self.command(&args).args(more))
    }

    /// Runs a topology to its end, however long that takes.
    ///
    /// # Panics
    /// When it can't be run.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        self.run_command(args).output().expect("the binary runs")
    }
}

/// The repository.
#[must_use]
pub fn root() -> &'static Path {
    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    Path::new(ROOT)
}

/// The program `tidemill` of the build that the running test or example belongs to. Cargo builds it before the tests
/// of its package.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn program() -> PathBuf {
    // Newer versions of cargo set it for tests; the folder is the same unless the build is configured otherwise.
    let program =
        std::env::var_os("CARGO_BIN_EXE_tidemill").map_or_else(|| build_dir().join("tidemill"), PathBuf::from);
    assert!(program.exists(), "{} is not there: build it first, with `cargo build`", program.display());
    program
}

/// Where the build puts its programs, such as `target/debug`: the folder above that of the running test or example.
fn build_dir() -> PathBuf {
    let program = std::env::current_exe().expect("a test has a path");
    program.ancestors().nth(2).expect("cargo builds tests into `deps` and examples into `examples`").to_owned()
}

/// A folder for what tests fetch once, such as `target/tmp`.
///
/// # Panics
/// When it can't be made.
#[must_use]
pub fn cache() -> PathBuf {
    let cache = build_dir().with_file_name("tmp");
    std::fs::create_dir_all(&cache).expect("a folder");
    cache
}

/// A program of `examples`, built now unless it is up to date.
///
/// # Panics
/// When it can't be built.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    let build_dir = build_dir();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // All packages, as `cargo test --workspace` does: with fewer, features differ, and all is built again.
    cargo.args(["build", "--workspace", "--locked", "--offline", "--quiet", "--example", name]);
    cargo.args(build_dir.ends_with("release").then_some("--release")).current_dir(root());
    crate::assert_exit(&cargo.output().expect("cargo runs"), 0);
    build_dir.join("examples").join(name)
}

/// Bytes as `gzip` packs them, by Python's own module.
///
/// # Panics
/// When Python is not there.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let script = "import gzip, sys; sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read()))";
    let packed = crate::with_input(Command::new("python3").args(["-c", script]), bytes);
    crate::assert_exit(&packed, 0);
    packed.stdout
}
