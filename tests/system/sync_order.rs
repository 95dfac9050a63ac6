//! What the real program writes, syncs and moves, in which order: read from a trace of its system calls.

use std::process::Command;

use tidemill_harness::{HOUR, Place, assert_exit, finish, lines, printed, python_command};

/// A run that seals hours, with a region behind a pond, under `strace`; the trace.
fn traced(place: &Place) -> String {
    let text = std::fs::read_to_string(place.plays("")).expect("the topology");
    let text = text.replace("allowed_lateness = \"30d\"", "allowed_lateness = \"1m\"");
    let text = text.replace("rescan =", "read_size = \"64KiB\"\nrescan =");
    let again = "[sinks.again]\nkind = \"avro_files\"\nfrom = [\"dedup\"]\npath = \"again/{year}/{month}/{day}/{hour}\"\npond = {}\n";
    place.write("plays.toml", format!("{text}\n{again}"));
    place.write("data/first", [lines(0..150_000), format!("broken\t{HOUR}\n")].concat());
    let run =
        place.run_command(&["plays.toml", "--until-end", "--set", "cut.interval=10ms", "--set", "runtime.replay=1MiB"]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-qq", "-s", "0", "-o", "trace"]);
    strace.args(["-e", "trace=pwrite64,fsync,syncfs,renameat2,openat"]);
    strace.arg(run.get_program()).args(run.get_args()).current_dir(place.path(""));
    assert_exit(&finish(&mut strace), 0);
    std::fs::read_to_string(place.path("trace")).expect("the trace")
}

fn read(place: &Place, trace: &str) -> std::process::Output {
    finish(python_command("sync_order.py").args([trace, ".tidemill/plays", "out"]).current_dir(place.path("")))
}

#[test]
fn nothing_is_built_on_what_is_not_durable() {
    let place = Place::new();
    let trace = traced(&place);
    let found = read(&place, "trace");
    assert_exit(&found, 0);
    let told: serde_json::Value = serde_json::from_slice(&found.stdout).expect("JSON");
    println!("{told}");
    assert!(told["records"].as_u64() > Some(20) && told["moves"].as_u64() > Some(10), "{told}");
    assert!(told["published"].as_u64() >= Some(2), "{told}");
    // Where any one sort of sync is left out, the reader of the trace says so.
    for without in ["fsync(", "syncfs("] {
        let less: String = trace.split_inclusive('\n').filter(|line| !line.contains(without)).collect();
        if less.len() < trace.len() {
            place.write("less", less);
            let found = read(&place, "less");
            assert_exit(&found, 1);
            assert!(printed(&found).contains("synced"), "{}", printed(&found));
        }
    }
}
