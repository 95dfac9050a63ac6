//! Programs that the tests run beside Tidemill, and how to get them.

use std::path::PathBuf;
use std::process::Command;

use crate::finish;

/// A group of tests, which is a target of its own: `cargo test --test GROUP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// What Tidemill promises, as far as Rust and Python show it.
    Promises,
    /// The same with many events, crashes and seeds.
    Proof,
    /// With a real Apache Kafka and a real schema registry.
    Kafka,
    /// With the tools and the rights of a system: mounts, traces, users, Prometheus.
    System,
}

impl Group {
    /// The name of its target.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Promises => "promises",
            Self::Proof => "proof",
            Self::Kafka => "kafka",
            Self::System => "system",
        }
    }
}

/// A program that tests run.
pub struct Need {
    /// Its name on the path.
    pub program: &'static str,
    /// Debian's package that has it.
    pub package: &'static str,
    /// What for.
    pub purpose: &'static str,
    /// Who needs it.
    pub groups: &'static [Group],
    /// A command that succeeds where the program is of use: it may be too old, or lack a right.
    check: &'static [&'static str],
    /// What it lacks where the command fails; empty when it does not run at all.
    requires: &'static str,
}

const fn need(
    program: &'static str,
    package: &'static str,
    groups: &'static [Group],
    purpose: &'static str,
    check: &'static [&'static str],
    requires: &'static str,
) -> Need {
    Need { program, package, purpose, groups, check, requires }
}

const PYTHON: &str = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))";
/// `java -version` writes to standard error, sometimes behind other lines.
const JAVA: &str =
    "v=$(java -version 2>&1 | sed -n 's/.*version \"\\([0-9]*\\).*/\\1/p' | head -n 1); test \"${v:-0}\" -ge 17";
/// As root, or else as root of a user namespace.
const MOUNT: &str = "d=$(mktemp -d) && m=\"mount -t tmpfs tmpfs $d && umount $d\"
    sh -c \"$m\" 2>/dev/null || unshare --user --map-root-user --mount sh -c \"$m\"; r=$?; rmdir \"$d\"; exit $r";
const UNSHARE: &str = "test \"$(id -u)\" = 0 || u='--user --map-root-user'; unshare $u --pid --fork --kill-child true";

/// All of them.
pub static NEEDS: [Need; 11] = [
    need(
        "python3",
        "python3-venv",
        &[Group::Promises, Group::Proof, Group::Kafka, Group::System],
        "readers that share no code with Tidemill",
        &["python3", "-c", PYTHON],
        "version 3.9 or later, with its module venv",
    ),
    need("git", "git", &[Group::Promises], "the rules of the repository", &["git", "--version"], ""),
    need("java", "default-jre-headless", &[Group::Kafka], "Apache Kafka", &["sh", "-c", JAVA], "version 17 or later"),
    need("mvn", "maven", &[Group::Kafka], "fetches Kafka and the registry", &["mvn", "-v"], ""),
    need("openssl", "openssl", &[Group::Kafka], "certificates of a broker", &["openssl", "version"], ""),
    need("kcat", "kcat", &[Group::Kafka], "a client of Kafka that is not ours", &["kcat", "-V"], ""),
    need("setpriv", "util-linux", &[Group::Kafka, Group::System], "servers, other users", &["setpriv", "--dump"], ""),
    need(
        "strace",
        "strace",
        &[Group::System],
        "the order of writes and syncs",
        &["strace", "-f", "-o", "/dev/null", "true"],
        "the right to trace (ptrace)",
    ),
    need("promtool", "prometheus", &[Group::System], "checks metrics and alarms", &["promtool", "--version"], ""),
    need("mount", "mount", &[Group::System], "full disks", &["sh", "-c", MOUNT], "root, or user namespaces"),
    need("unshare", "util-linux", &[Group::System], "namespaces", &["sh", "-c", UNSHARE], "root, or user namespaces"),
];

/// Why a program is of no use here.
pub struct Missing {
    /// The program.
    pub need: &'static Need,
    /// Where it is, when it is there and something else is missing.
    pub found: Option<PathBuf>,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Need { program, package, purpose, groups, requires, .. } = self.need;
        let groups: Vec<&str> = groups.iter().map(|group| group.name()).collect();
        let groups = groups.join(", ");
        match &self.found {
            None => write!(f, "{program} ({purpose}; tests: {groups}): Debian's package {package} has it"),
            Some(path) if requires.is_empty() => {
                write!(f, "{} ({purpose}; tests: {groups}): it does not run", path.display())
            }
            Some(path) => write!(f, "{} ({purpose}; tests: {groups}): it needs {requires}", path.display()),
        }
    }
}

/// What is not here, of everything, or of what one group needs. Runs each program for a moment.
#[must_use]
pub fn missing(group: Option<Group>) -> Vec<Missing> {
    let is_needed = |need: &&'static Need| group.is_none_or(|group| need.groups.contains(&group));
    NEEDS.iter().filter(is_needed).filter_map(Need::missing).collect()
}

/// Asserts that everything is here that a group needs.
///
/// # Panics
/// When something is not; the message says how to get it.
#[track_caller]
pub(crate) fn require(group: Group) {
    let missing: Vec<String> = missing(Some(group)).iter().map(ToString::to_string).collect();
    assert!(missing.is_empty(), "tests of the group {} need what is not here:\n{}", group.name(), missing.join("\n"));
}

impl Need {
    fn missing(&'static self) -> Option<Missing> {
        let Some(path) = on_path(self.program) else { return Some(Missing { need: self, found: None }) };
        let is_fine = finish(Command::new(self.check[0]).args(&self.check[1..])).status.success();
        (!is_fine).then_some(Missing { need: self, found: Some(path) })
    }
}

/// Where to get a program, for a message; empty when no test is known to need it.
pub(crate) fn hint(program: &str) -> String {
    let need = NEEDS.iter().find(|need| need.program == program);
    need.map(|need| format!(" (Debian: apt-get install {})", need.package)).unwrap_or_default()
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
