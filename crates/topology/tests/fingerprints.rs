//! Which edits of a topology its state survives.

mod common;

use common::{good, load_text};
use tidemill_topology::{Change, Fingerprint};

fn print(text: &str) -> Fingerprint {
    let loaded = load_text("good.toml", text);
    loaded.plan.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics)).fingerprint()
}

fn changes(from: &str, to: &str) -> Vec<Change> {
    let text = good("");
    assert!(text.contains(from), "{from}");
    print(&text).compare(&print(&text.replacen(from, to, 1)))
}

#[track_caller]
fn refused(from: &str, to: &str, what: &str) {
    let changes = changes(from, to);
    let found = changes.iter().find(|change| change.what.contains(what));
    assert!(found.is_some_and(|change| !change.compatible && change.help.contains("--fresh")), "{changes:#?}");
}

#[track_caller]
fn compatible(from: &str, to: &str, what: &str) {
    let changes = changes(from, to);
    assert!(changes.iter().all(|change| change.compatible), "{changes:#?}");
    assert!(changes.iter().any(|change| change.what.contains(what)), "{changes:#?}");
}

#[test]
fn the_same_topology_has_no_changes_also_after_a_trip_through_json() {
    let print = print(&good("# a comment\n"));
    let text = serde_json::to_string(&print).unwrap();
    let back: Fingerprint = serde_json::from_str(&text).unwrap();
    assert_eq!(back.compare(&print), []);
}

#[test]
fn another_name_or_bucket_is_refused() {
    refused("name = \"plays\"", "name = \"listens\"", "the topology is named `listens`");
    refused("name = \"plays\"", "name = \"plays\"\nbucket = \"30m\"", "`bucket` was 1h, now 30m");
}

#[test]
fn writing_out_the_path_that_a_sink_has_anyway_is_no_change() {
    let path = "path = \"{event_type}/year={year}/month={month}/day={day}/hour={hour}\"\n";
    assert_eq!(changes(path, ""), []);
    refused(path, "path = \"{event_type}/{year}/{month}/{day}/{hour}\"\n", "option `path` of `warehouse`");
}

#[test]
fn another_time_or_id_of_a_type_is_refused() {
    refused("time = \"played_at\"", "time = \"received_at\"", "the time of type `play` was field `played_at`");
    refused(
        "id = [\"event_id\"]",
        "id = [\"event_id\", \"country\"]",
        "the id of type `play` was `event_id` (string), now",
    );
}

#[test]
fn a_type_that_state_has_seen_can_not_be_removed() {
    let skip = "\n[types.skip]\nschema = \"schemas/skip.avsc\"\ntime = \"skipped_at\"\nid = [\"event_id\"]\n";
    refused(skip, "", "type `skip` was removed");
}

#[test]
fn a_source_or_a_stage_with_state_can_not_be_removed() {
    let text = good("");
    let renamed = text.replace("[sources.events]", "[sources.raw]").replace("[\"events\"]", "[\"raw\"]");
    let renamed = renamed.replace("[stages.dedup]", "[stages.unique]").replace("[\"dedup\"]", "[\"unique\"]");
    let changes = print(&text).compare(&print(&renamed));
    let refused: Vec<&str> =
        changes.iter().filter(|change| !change.compatible).map(|change| change.what.as_str()).collect();
    assert_eq!(refused, ["stage `dedup` (kind `dedup`) was removed", "source `events` (kind `file`) was removed"]);
    assert!(changes[0].help.contains("if it is `unique` now"), "{changes:#?}");
    assert!(changes.iter().any(|change| change.compatible && change.what == "stage `unique` is new"));
}

#[test]
fn a_source_or_a_stage_with_state_can_not_change_its_kind() {
    let file = "kind = \"file\"\npaths = [\"in/*.tsv\"]";
    refused(file, "kind = \"generate\"", "`events` was a source of kind `file`, now a source of kind `generate`");
    let dedup = "kind = \"dedup\"";
    refused(dedup, "kind = \"filter\"\nwhere = \"country\"", "`dedup` was a stage of kind `dedup`");
}

#[test]
fn an_option_that_shapes_state_can_not_change() {
    refused(
        "from = [\"parse\"]\n",
        "from = [\"parse\"]\nwindow = \"12h\"\n",
        "option `window` of `dedup` was 86400000",
    );
    refused(
        "from = [\"parse\"]\n",
        "from = [\"parse\"]\nkeys = [\"event_id\"]\n",
        "option `keys` of `dedup` was left out",
    );
    refused("paths = [\"in/*.tsv\"]", "paths = [\"other\"]", "option `paths` of `events`");
}

#[test]
fn limits_workers_and_other_options_may_change() {
    compatible("name = \"plays\"", "name = \"plays\"\nallowed_lateness = \"1h\"", "`allowed_lateness` was 10m, now 1h");
    compatible("name = \"plays\"", "name = \"plays\"\nmax_event = \"2MiB\"", "`max_event` was 1MiB, now 2MiB");
    compatible("workers = 2", "workers = 3", "`workers` of `parse` was 2, now 3");
    compatible("workers = 2", "header = true", "option `header` of `parse` was false, now true");
    compatible("day={day}/hour={hour}\"", "day={day}/hour={hour}\"\ncodec = \"null\"", "option `codec` of `warehouse`");
}

#[test]
fn stages_without_state_sinks_and_types_may_be_added() {
    let sink = "[sinks.more]\nkind = \"console\"\nfrom = [\"dedup\"]\n\n[sinks.warehouse]";
    compatible("[sinks.warehouse]", sink, "sink `more` is new");
    let pause = "[types.pause]\nschema = \"schemas/play.avsc\"\ntime = \"paused_on\"\n\n[types.skip]"
        .replace("paused_on", "played_at");
    let text = good("").replace("from = [\"parse\"]", "from = [\"parse\"]\nkeys = [\"event_id\"]");
    let changes = print(&text).compare(&print(&text.replace("[types.skip]", &pause)));
    assert!(changes.iter().all(|change| change.compatible), "{changes:#?}");
    assert!(changes.iter().any(|change| change.what == "type `pause` is new"), "{changes:#?}");
}

#[test]
fn inputs_and_parsers_may_change() {
    compatible("kind = \"tsv\"", "kind = \"json\"", "`parse` was a stage of kind `tsv`, now a stage of kind `json`");
    compatible(
        "from = [\"parse\"]\n",
        "from = [\"parse\"]\ntypes = [\"play\"]\n",
        "`dedup` took types play, skip, now play",
    );
    let filter = "[stages.some]\nkind = \"filter\"\nfrom = [\"parse\"]\nwhere = \"country\"\n\n[stages.dedup]\nkind = \"dedup\"\nfrom = [\"some\"]";
    compatible(
        "[stages.dedup]\nkind = \"dedup\"\nfrom = [\"parse\"]",
        filter,
        "`dedup` took from parse, now from some",
    );
}

#[test]
fn a_schema_that_keeps_time_and_id_may_change() {
    compatible("schemas/skip.avsc", "schemas/skip_2.avsc", "the schema of type `skip` changed");
}
