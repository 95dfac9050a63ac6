//! The example of a sink of one's own, as a binary of its own.

use std::process::Command;

use tidemill_harness::{Place, assert_exit, example, finish, root};

#[test]
fn the_example_counts_every_event_once_also_over_a_second_run() {
    let example = example("custom_sink");
    let place = Place::new();
    let shipped = std::fs::read_to_string(root().join("examples/custom_sink.toml")).expect("the example's topology");
    let schemas = root().join("topologies/schemas");
    place.write("count.toml", shipped.replace("../topologies/schemas", &schemas.display().to_string()));
    for _ in 0..2 {
        let mut command = Command::new(&example);
        command.args(["run", "count.toml", "--until-end", "--progress", "none", "--set", "admin.listen="]);
        assert_exit(&finish(command.current_dir(place.path("."))), 0);
        let count = std::fs::read_to_string(place.path("count.txt")).expect("the sink's file");
        assert_eq!(count, "9800", "10,000 events, 2 % of them sent twice");
    }
}
