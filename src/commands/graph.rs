//! `tidemill graph`

use tidemill_runtime::Registry;

use crate::cli::{Graph, GraphFormat};
use crate::commands::topology::read;
use crate::exit::Failure;
use crate::output::print;

pub(crate) fn run(registry: &Registry, args: &Graph) -> Result<(), Failure> {
    let plan = read(registry, Some(&args.topology)).plan()?;
    let format = match args.format {
        GraphFormat::Mermaid => tidemill_topology::GraphFormat::Mermaid,
        GraphFormat::Dot => tidemill_topology::GraphFormat::Dot,
    };
    print(tidemill_topology::graph(&plan, format))
}
