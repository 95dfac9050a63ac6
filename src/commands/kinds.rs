//! `tidemill kinds` and `tidemill schema`

use tidemill_core::Role;
use tidemill_runtime::Registry;
use tidemill_topology::Kinds;

use crate::exit::{Code, Failure};
use crate::output::print;

pub(crate) fn run(registry: &Registry, kind: Option<&str>) -> Result<(), Failure> {
    let Some(name) = kind else {
        return print(tidemill_topology::describe(registry));
    };
    let specs: Vec<_> =
        [Role::Source, Role::Stage, Role::Sink].into_iter().flat_map(|role| registry.specs(role)).collect();
    let found: Vec<_> = specs.iter().filter(|spec| spec.name == name).collect();
    if found.is_empty() {
        let help = tidemill_topology::suggest_kind(registry, name);
        return Err(Failure::new(Code::Usage, format!("there is no kind `{name}`; {help}")));
    }
    found.iter().try_for_each(|spec| print(tidemill_topology::describe_kind(spec)))
}

pub(crate) fn schema(registry: &Registry) -> Result<(), Failure> {
    print(format_args!("{:#}\n", tidemill_topology::json_schema(registry)))
}
