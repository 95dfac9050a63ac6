//! Sums and means do not depend on the order in which events come, and reprocessing an hour makes the same.

use serde_json::{Value, json};

use tidemill_harness::{HOUR, Place, assert_exit, finish, printed};

fn payments(place: &Place, lines: &[&str]) {
    place.write(
        "pay.avsc",
        r#"{"type": "record", "name": "Pay", "fields": [
            {"name": "id", "type": "string"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "real", "type": "double"},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}}]}"#,
    );
    let topology = r#"
        [topology]
        name = "plays"
        [types.pay]
        schema = "pay.avsc"
        time = "at"
        id = ["id"]
        [sources.lines]
        kind = "file"
        paths = ["data/*"]
        [stages.parse]
        kind = "tsv"
        from = ["lines"]
        type_from = { const = "pay" }
        time = "epoch_ms"
        [stages.sums]
        kind = "hourly"
        from = ["parse"]
        [stages.sums.measures]
        real = "sum(real)"
        mean = "mean(real)"
        price = "sum(price)"
        average = "mean(price)"
        least = "min(price)"
        most = "max(price)"
        [sinks.files]
        kind = "avro_files"
        from = ["sums"]"#;
    place.write("plays.toml", topology);
    for (number, line) in lines.iter().enumerate() {
        place.write(&format!("data/{number}"), format!("{number}\t{}\t{line}\n", HOUR + number as i64));
    }
}

fn sums(place: &Place) -> Vec<Value> {
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    place.published("sums")
}

#[test]
fn the_order_of_floats_changes_no_sum_and_decimals_are_added_up() {
    let lines = ["1e16\t12.50", "1\t-0.01", "-1e16\t9999999999.99", "0.1\t0.00"];
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]];
    let rows = orders.map(|order| {
        let place = Place::new();
        payments(&place, &order.map(|at| lines[at]));
        let rows = sums(&place);
        let hour = tidemill_core::format_time_ms(HOUR)[..13].to_owned();
        let again = place.tidemill(&["reprocess", "plays.toml", "--hour", &hour, "--dry-run"]);
        assert_exit(&again, 0);
        assert!(printed(&again).contains("the same as revision 0"), "{}", printed(&again));
        rows
    });
    let [row] = &rows[0][..] else { panic!("{rows:?}") };
    assert_eq!((&row["real"], &row["mean"]), (&json!(1.1), &json!(0.275)), "{row}");
    assert_eq!(
        (&row["price"], &row["least"], &row["most"]),
        (&json!("10000000012.48"), &json!("-0.01"), &json!("9999999999.99"))
    );
    assert_eq!(row["average"], json!(2_500_000_003.12));
    assert_eq!((&rows[1], &rows[2]), (&rows[0], &rows[0]));
}
