//! Loading a topology for a command.

use std::io::IsTerminal;
use std::path::Path;

use tidemill_core::Severity;
use tidemill_runtime::Registry;
use tidemill_topology::{Diagnostic, Loaded, Plan, not_utf8, unreadable};

use crate::exit::{Code, Failure};

/// The topology that runs when none is named, and the file that it refers to.
const QUICKSTART: &str = include_str!("../../topologies/quickstart.toml");
const QUICKSTART_SCHEMA: &str = include_str!("../../topologies/schemas/listening.avsc");

/// A topology file with what there is to say about it.
pub(crate) struct Read {
    pub(crate) text: String,
    pub(crate) loaded: Loaded,
}

/// Reads and checks a topology; `None` is the embedded quickstart. A file that can't be read has a diagnostic like any other mistake.
pub(crate) fn read(registry: &Registry, path: Option<&Path>) -> Read {
    let Some(path) = path else {
        let schema = |_: &Path| Ok(QUICKSTART_SCHEMA.to_owned());
        let loaded = tidemill_topology::load(QUICKSTART, Path::new("quickstart.toml"), registry, &schema);
        return Read { text: QUICKSTART.to_owned(), loaded };
    };
    let refused = |text, found: Diagnostic| Read { text, loaded: Loaded { plan: None, diagnostics: vec![found] } };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return refused(String::new(), unreadable(path, &error)),
    };
    if let Some((text, found)) = not_utf8(path, &bytes) {
        return refused(text, found);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let loaded = tidemill_topology::load(&text, path, registry, &|path| std::fs::read_to_string(path));
    Read { text, loaded }
}

impl Read {
    /// Prints errors and warnings to standard error.
    pub(crate) fn print(&self) {
        let color = std::io::stderr().is_terminal();
        for diagnostic in &self.loaded.diagnostics {
            eprintln!("{}", diagnostic.render(&self.text, color));
        }
    }

    /// The plan; when there is none, the errors are printed.
    pub(crate) fn plan(self) -> Result<Plan, Failure> {
        self.print();
        let errors = self.loaded.diagnostics.iter().filter(|found| found.severity == Severity::Error).count();
        let message = format!("the topology has {errors} error{}", if errors == 1 { "" } else { "s" });
        self.loaded.plan.ok_or_else(|| Failure::new(Code::Config, message))
    }
}
