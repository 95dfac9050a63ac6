//! Readers of `tests/readers`, which share no code with Tidemill, and the Python that runs them.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::{cache, printed, root};

/// Runs a program of `tests/readers` with Python and the packages that it needs.
///
/// # Panics
/// When Python or its packages can't be had.
#[must_use]
pub fn python(script: &str, args: &[&str]) -> Output {
    python_command(script).args(args).output().expect("python runs")
}

/// The same, to be given arguments and input.
///
/// # Panics
/// When Python or its packages can't be had.
#[must_use]
pub fn python_command(script: &str) -> Command {
    let mut command = Command::new(interpreter());
    command.arg(root().join("tests/readers").join(script));
    command
}

/// The interpreter with all packages of the readers. They are installed once, below `target`.
///
/// # Panics
/// When Python or its packages can't be had.
#[must_use]
pub fn interpreter() -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(install).clone()
}

fn install() -> PathBuf {
    let requirements = root().join("tests/readers/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).expect("requirements");
    let venv = cache().join("python");
    let installed = venv.join("requirements.txt");
    let lock = std::fs::File::create(cache().join("python.lock")).expect("a lock");
    // Several test programs may begin at once.
    lock.lock().expect("a lock of a local file");
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
        assert!(pip.status.success(), "the Python packages can't be installed:\n{}", printed(&pip));
        std::fs::write(&installed, wanted).expect("a note of what is installed");
    }
    venv.join("bin/python")
}
