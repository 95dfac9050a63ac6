//! A topology's text; behind a zero byte, the schema that all its types have.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidemill_runtime::Registry;
use tidemill_topology::{Fingerprint, GraphFormat, graph, load};

static REGISTRY: LazyLock<Registry> = LazyLock::new(tidemill::registry);
const SCHEMA: &str = r#"{"type":"record","name":"E","fields":[{"name":"id","type":"string"},{"name":"n","type":["null","int"]},
    {"name":"time","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"e","type":{"type":"enum","name":"S","symbols":["a","b"]}}]}"#;

fuzz_target!(|bytes: &[u8]| {
    let Ok(whole) = std::str::from_utf8(bytes) else { return };
    let (text, schema) = whole.split_once('\0').unwrap_or((whole, SCHEMA));
    let loaded = load(text, Path::new("folder/fuzz.toml"), &*REGISTRY, &|_| Ok(schema.to_owned()));
    for diagnostic in &loaded.diagnostics {
        let _ = (diagnostic.render(text, false), diagnostic.render(text, true));
    }
    assert_eq!(loaded.plan.is_none(), loaded.diagnostics.iter().any(|diagnostic| diagnostic.is_error()));
    let Some(plan) = loaded.plan else { return };
    let _ = (graph(&plan, GraphFormat::Mermaid), graph(&plan, GraphFormat::Dot));
    // The ledger keeps it.
    let print = plan.fingerprint();
    let kept = serde_json::to_string(&print).expect("plain members");
    let read: Fingerprint = serde_json::from_str(&kept).expect("what was just written");
    assert_eq!(print, read);
    assert!(print.compare(&read).is_empty());
    let _ = plan.regions();
});
