//! Loading a topology for a command.

use std::io::IsTerminal;
use std::path::Path;

use tidemill_core::Severity;
use tidemill_runtime::Registry;
use tidemill_topology::{Loaded, Plan};

use crate::exit::{Code, Failure};

/// The topology that runs when none is named, and the file that it refers to.
const QUICKSTART: &str = include_str!("../../topologies/quickstart.toml");
const QUICKSTART_SCHEMA: &str = include_str!("../../topologies/schemas/listening.avsc");

/// A topology file with what there is to say about it.
pub(crate) struct Read {
    pub(crate) text: String,
    pub(crate) loaded: Loaded,
}

/// Reads and checks a topology; `None` is the embedded quickstart.
pub(crate) fn read(registry: &Registry, path: Option<&Path>) -> Result<Read, Failure> {
    let Some(path) = path else {
        let schema = |_: &Path| Ok(QUICKSTART_SCHEMA.to_owned());
        let loaded = tidemill_topology::load(QUICKSTART, Path::new("quickstart.toml"), registry, &schema);
        return Ok(Read { text: QUICKSTART.to_owned(), loaded });
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Code::Config, format!("can't read topology {}: {error}", path.display())))?;
    let loaded = tidemill_topology::load(&text, path, registry, &|path| std::fs::read_to_string(path));
    Ok(Read { text, loaded })
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
