//! Input that nobody should send, and places that can't be used: a clear message, nothing lost, no hang.

use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use tidemill_harness::{
    HOUR, Place, Process, Usage, assert_each_once, assert_exit, finish, gzip, lines, printed, wait_for,
};

const RUN: [&str; 2] = ["plays.toml", "--until-end"];

/// Runs all of `data/*` and returns what was delivered and what became dead letters; both are there as `verify` says.
#[track_caller]
fn deliver(place: &Place) -> (Vec<Value>, Vec<Value>) {
    place.plays("");
    let run = finish(&mut place.run_command(&RUN));
    assert_exit(&run, 0);
    let (plays, dead) = (place.published("play"), place.published("_dead_letters"));
    assert_eq!(place.verified_rows(), (plays.len() + dead.len()) as u64);
    (plays, dead)
}

fn ids(plays: &[Value]) -> Vec<&str> {
    let mut ids: Vec<&str> = plays.iter().map(|play| play["id"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

/// Position, reason and message of each dead letter, in order of position.
fn letters(dead: &[Value]) -> Vec<(u64, &str, &str)> {
    let mut letters: Vec<_> = dead
        .iter()
        .map(|letter| {
            let (reason, message) =
                (letter["reason"].as_str().expect("a reason"), letter["message"].as_str().expect("a message"));
            (letter["position"].as_u64().expect("a position"), reason, message)
        })
        .collect();
    letters.sort_unstable();
    letters
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "it does not say {word:?}: {text}");
    }
}

#[test]
fn every_line_of_binary_garbage_is_a_dead_letter_with_its_bytes() {
    let place = Place::new();
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let garbage: Vec<u8> = (0..300_000).map(|_| random()).collect();
    place.write("data/garbage", &garbage);
    place.write("data/sound", lines(0..10));
    let (plays, dead) = deliver(&place);
    assert_each_once(&plays, 0..10);
    let mut expected: Vec<String> = garbage
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    let mut found: Vec<&str> = dead.iter().map(|letter| letter["payload"].as_str().expect("bytes")).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn lines_of_10_mb_are_dead_letters_with_their_length_and_cost_little_memory() {
    const LONG: usize = 10_000_000;
    const LINES: u32 = 20;
    let place = Place::new();
    place.plays("");
    let mut file = std::io::BufWriter::new(std::fs::File::create(place.path("data/long")).expect("a file"));
    for number in 0..LINES {
        file.write_all(lines(number..number + 1).as_bytes()).expect("written");
        file.write_all(&vec![b'a' + number as u8; LONG]).expect("written");
        file.write_all(b"\n").expect("written");
    }
    file.write_all(lines(LINES..LINES + 1).as_bytes()).expect("written");
    drop(file);
    let Usage { status, peak_kib: peak, .. } = Process::start(&mut place.run_command(&RUN)).measure();
    assert_eq!(status.code(), Some(0));
    assert_each_once(&place.published("play"), 0..LINES + 1);
    let dead = place.published("_dead_letters");
    assert_eq!(dead.len(), LINES as usize);
    let max_event = 1 << 20;
    for letter in &dead {
        assert_eq!(letter["reason"], "too_large");
        // With the line feed.
        assert_eq!(letter["payload_length"], LONG + 1);
        assert_says(letter["message"].as_str().expect("a message"), &["10000001 bytes", "max_event", "1048576"]);
        let payload = letter["payload"].as_str().expect("bytes");
        assert_eq!(payload.len(), 2 * max_event, "the beginning is kept");
        assert_eq!(payload, payload[..2].repeat(max_event));
    }
    println!("peak memory {} MiB for {} MB of lines", peak >> 10, LINES as usize * LONG / 1_000_000);
    assert!(peak > 0 && peak < 150 << 10, "peak memory {} MiB", peak >> 10);
}

#[test]
fn invalid_utf_8_is_a_dead_letter_that_names_the_field() {
    let place = Place::new();
    let line = |id: &str, who: &[u8]| [format!("{id}\t{HOUR}\t").as_bytes(), who, b"\n"].concat();
    let text = [line("a", b"fine"), line("b", b"\xff\xfe"), line("c", "fin\u{e9}".as_bytes())];
    place.write("data/text", text.concat());
    let (plays, dead) = deliver(&place);
    assert_eq!(ids(&plays), ["a", "c"]);
    let letters = letters(&dead);
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].0, letters[0].1), (text[0].len() as u64, "bad_value"));
    assert_says(letters[0].2, &["`who`", "UTF-8"]);
}

#[test]
fn empty_files_and_empty_lines_are_no_events() {
    let place = Place::new();
    place.write("data/empty", "");
    place.write("data/packed.gz", "");
    place.write("data/feeds", "\n\n\r\n\n");
    let (plays, dead) = deliver(&place);
    assert_eq!((plays.len(), dead.len()), (0, 0));
    let again = finish(&mut place.run_command(&RUN));
    assert_exit(&again, 0);
}

#[test]
fn missing_and_surplus_columns_are_dead_letters_that_list_the_columns() {
    let place = Place::new();
    place.write("data/columns", format!("a\nb\t{HOUR}\nc\t{HOUR}\tx\tmore\nd\t{HOUR}\tx\n\t{HOUR}\tx\n"));
    let (plays, dead) = deliver(&place);
    // An empty text is a text.
    assert_eq!(ids(&plays), ["", "d"]);
    let letters = letters(&dead);
    assert_eq!(letters.len(), 3);
    for ((_, reason, message), columns) in letters.iter().zip([1, 2, 4]) {
        assert_eq!(*reason, "malformed");
        assert_says(message, &[&format!("{columns} columns"), "has 3: id, at, who"]);
    }
}

#[test]
fn year_9999_and_times_out_of_range_are_dead_letters_and_times_before_1970_are_none() {
    let place = Place::new();
    let times = [
        "253402300799000",
        "9999999999999999",
        "-62135596800001",
        "99999999999999999999",
        "-9223372036854775809",
        "noon",
    ];
    let text: String = times.iter().enumerate().map(|(number, time)| format!("bad{number}\t{time}\tx\n")).collect();
    place.write("data/bad", text);
    place.write("data/negative", "n1\t-1\tx\nn2\t-3600000\tx\nn3\t-3600001\tx\nn4\t0\tx\n");
    let (plays, dead) = deliver(&place);
    assert_eq!(ids(&plays), ["n1", "n2", "n3", "n4"]);
    let hours = [
        "play/year=1969/month=12/day=31/hour=22",
        "play/year=1969/month=12/day=31/hour=23",
        "play/year=1970/month=01/day=01/hour=00",
    ];
    assert_eq!(hours.map(|hour| place.published(hour).len()), [1, 2, 1]);
    let reasons: Vec<&str> = letters(&dead).iter().map(|letter| letter.1).collect();
    let range = "time_out_of_range";
    assert_eq!(reasons, ["too_far_ahead", range, range, range, range, "bad_value"]);
    assert_says(letters(&dead)[0].2, &["max_ahead"]);
    assert_says(letters(&dead)[1].2, &["years 1 to 9999"]);
}

#[test]
fn a_truncated_gzip_stops_the_run_and_the_whole_file_completes_it() {
    let place = Place::new();
    place.plays("");
    let text = lines(0..50_000);
    let packed = gzip(text.as_bytes());
    let half = packed.len() / 2;
    place.write("data/plays.gz", &packed[..half]);
    for _ in 0..2 {
        let run = finish(&mut place.run_command(&RUN));
        assert_exit(&run, 75);
        let said = printed(&run);
        assert_says(
            &said,
            &["data/plays.gz", "ends in the middle of its gzip data", "Put the complete file in its place"],
        );
        let position = said
            .split("at byte ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .and_then(|number| number.parse().ok());
        let position: usize = position.expect("a position");
        assert!(position > 0 && text[..position].ends_with('\n'), "byte {position} is not behind a whole line");
    }
    place.write("data/plays.gz", &packed);
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert_each_once(&place.published("play"), 0..50_000);
    assert_eq!(place.published("_dead_letters").len(), 0);
    assert_eq!(place.verified_rows(), 50_000);
}

#[test]
fn values_in_paths_stay_below_the_output_root() {
    let place = Place::new();
    place.plays("path = \"{who}/{year}/{month}/{day}/{hour}\"");
    let values = [
        "../x",
        "..",
        ".",
        "/etc/x",
        "../../../../tmp/x",
        "a/b\\c",
        "%2e%2e",
        "rev=0",
        "",
        "__null__",
        ".tidemill-claim",
        "x\0y",
    ];
    let text: String =
        values.iter().enumerate().map(|(number, value)| format!("v{number:02}\t{HOUR}\t{value}\n")).collect();
    place.write("data/values", text);
    let before = names(&place.path(""));
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    let new: Vec<String> = names(&place.path("")).into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(new, [".tidemill", "out"], "only the state and the output are new");
    let folders = names(&place.out()).into_iter().filter(|name| !name.starts_with(".tidemill"));
    assert_eq!(folders.count(), values.len(), "each value has a folder of its own: {:?}", names(&place.out()));
    let published = place.published("");
    let mut found: Vec<&str> = published.iter().map(|play| play["who"].as_str().expect("text")).collect();
    found.sort_unstable();
    let mut expected = values;
    expected.sort_unstable();
    assert_eq!(found, expected, "the values themselves are as they were");
    assert_eq!(place.verified_rows(), values.len() as u64);
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn directories_that_cannot_be_written_are_named() {
    let place = Place::new();
    place.plays("");
    place.write("data/plays", lines(0..10));
    place.write("file", "not a folder");
    // These hold for root too.
    for (setting, dir) in
        [("output.root", "file/out"), ("state.root", "file/state"), ("output.root", "/proc/nothing/out")]
    {
        let run = finish(place.run_command(&RUN).args(["--set", &format!("{setting}={dir}")]));
        assert_exit(&run, 69);
        assert_says(&printed(&run), &["can't create", dir]);
    }
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert_each_once(&place.published("play"), 0..10);
}

#[test]
fn a_place_in_the_output_that_is_taken_is_named_and_nothing_is_lost() {
    let place = Place::new();
    place.plays("");
    place.write("data/plays", lines(0..100_000));
    let taken = place.write("out/play", "a file where a folder belongs");
    let run = finish(&mut place.run_command(&RUN));
    assert_exit(&run, 69);
    assert_says(&printed(&run), &["can't create", "out/play"]);
    std::fs::remove_file(taken).expect("removed");
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert_each_once(&place.published("play"), 0..100_000);
    assert_eq!(place.verified_rows(), 100_000);
}

#[test]
fn a_state_that_another_run_owns_is_refused_with_its_process() {
    let place = Place::new();
    place.plays("");
    let owner = Process::start(place.run_command(&["plays.toml"]).stderr(std::process::Stdio::piped()));
    let pid = owner.id();
    wait_for("the lock", || {
        std::fs::read_to_string(place.path(".tidemill/plays/lock")).ok().filter(|text| text.contains(&pid.to_string()))
    });
    let second = finish(place.run_command(&RUN).args(["--set", "output.root=other"]));
    let fresh = finish(place.run_command(&RUN).args(["--fresh", "--yes"]));
    owner.stop();
    for refused in [second, fresh] {
        assert_exit(&refused, 75);
        assert_says(
            &printed(&refused),
            &[".tidemill/plays", "running process", &format!("process {pid}"), "state.root"],
        );
    }
}

#[test]
fn an_output_root_of_another_state_is_refused_and_left_alone() {
    let place = Place::new();
    place.write("data/plays", lines(0..10));
    deliver(&place);
    let other = finish(place.run_command(&RUN).args(["--set", "state.root=other"]));
    assert_exit(&other, 75);
    assert_says(&printed(&other), &["output root out", ".tidemill/plays", "output.root"]);
    assert_eq!(place.verified_rows(), 10);
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
}

#[test]
fn a_state_of_another_version_is_refused_and_the_way_out_is_named() {
    let place = Place::new();
    place.plays("");
    place.write("data/first", format!("one\t{HOUR}\t\n"));
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    let files = std::fs::read_dir(place.path(".tidemill/plays")).expect("the state");
    let names = files.map(|entry| entry.expect("an entry").path());
    let ledger = names
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ledger-")))
        .last()
        .expect("a ledger");
    let mut bytes = std::fs::read(&ledger).expect("the ledger");
    assert_eq!(&bytes[..8], b"TIDELDG6");
    bytes[7] = b'3';
    std::fs::write(&ledger, bytes).expect("it is written");
    let refused = finish(&mut place.run_command(&["plays.toml", "--until-end"]));
    assert_exit(&refused, 78);
    assert!(
        printed(&refused).contains("another version") && printed(&refused).contains("--fresh"),
        "{}",
        printed(&refused)
    );
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end", "--fresh", "--yes"])), 0);
}
