#!/usr/bin/env python3
"""Compares what was published of the flights with the text that they came from.

    flights_compare.py ROOT FLIGHTS.tsv [--type flight] [--counts carriers]

Turns every record of the type back into its line: they must be the lines of the text, each as often as there. The hourly counts
per carrier must be those of flights_expected.py. Exits 1 when anything differs.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import fastavro

from flights_expected import expected
from published import MANIFEST, REVISION, text_of, walk


def records_of(root, event_type):
    """Records of all published files of a type, each with its time in milliseconds."""
    for folder, names in walk(root):
        if not REVISION.match(folder.name) or MANIFEST not in names:
            continue
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["event_type"] != event_type:
            continue
        for part in manifest["files"]:
            with open(folder / part["name"], "rb") as data:
                for record in fastavro.reader(data):
                    yield record, record[manifest["event_time"]["field"]]


def line_of(record):
    """The line of the text that a record was made of: the fields are the columns, in order, the time first."""
    values = list(record.values())
    values[0] = text_of(values[0])
    return "\t".join("NA" if value is None else str(value) for value in values)


def show(what, found, wanted):
    """Prints what differs between two counters; returns how much."""
    extra, missing = found - wanted, wanted - found
    for label, counter in (("not in the source", extra), ("missing", missing)):
        for key in sorted(counter)[:5]:
            print(f"DIFFERENCE {what}: {label}, {counter[key]} of {key}")
    return len(extra) + len(missing)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("source")
    parser.add_argument("--type", default="flight")
    parser.add_argument("--counts", default="carriers")
    options = parser.parse_args()
    root = Path(options.root)

    lines = Path(options.source).read_text(encoding="utf-8").splitlines()
    wanted = expected(options.source)
    found_lines = Counter(line_of(record) for record, _ in records_of(root, options.type))
    differences = show("flights", found_lines, Counter(lines))

    per_hour = Counter()
    for record, time in records_of(root, options.counts):
        per_hour[f"{text_of(time)[:13]} {record['carrier']}"] += record["flights"]
    both = Counter({key: count for (what, key), count in wanted.items() if what == "both"})
    differences += show("counts per hour and carrier", per_hour, both)

    hours = sum(1 for what, _ in wanted if what == "hour")
    rows = sum(found_lines.values())
    verdict = f"{differences} DIFFERENCES" if differences else "no differences"
    print(f"flights: {len(lines):,} in {hours:,} hours expected, {rows:,} found: {verdict}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
