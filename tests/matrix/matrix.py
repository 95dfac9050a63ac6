#!/usr/bin/env python3
"""The fault matrix: does to Tidemill what happens to it in the field, and counts what is lost and what is doubled.

    tests/matrix/matrix.py [--short] [--seed N] [--rows NAME,NAME] [--write docs/faults.md]

Rows may be run one by one; `--write` puts those that were run here into the page, and leaves the others as they are.

Needs what the tests need (Java, Python packages of `tests/readers/requirements.txt`), and a build: `cargo build --workspace --all-targets`; run
`cargo test --workspace` once, which fetches the rest. Exits with 1 when anything was lost or doubled.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import sys
import time

import of_tests  # noqa: F401 - before all that comes from packages
import backfills
import repeats
import rows
from kit import ROOT

KEPT = ROOT / "target" / "tmp" / "matrix.json"
TAKE_OVER = ["take_over::"]
POISON = ["suspects::", "faults::an_event"]
NO_ROOM = ["no_room::"]
ROWS = {
    "kills": rows.kills,
    "workers": rows.in_process,
    "broker": rows.broker_trouble,
    "sink": rows.dead_sink,
    "overload": rows.overload,
    "damage": rows.damage,
    "no-room": lambda scale, seed: rows.of_tests("disk full while staging, in a cut and in a pond; then room again", NO_ROOM, scale, ""),
    "zombies": lambda scale, seed: rows.of_tests("a frozen process taken over at each step of a publication; one that can't be killed", TAKE_OVER, scale, ""),
    "poison": lambda scale, seed: rows.of_tests("an event that panics, hangs, or ends the process", POISON, scale, ""),
    "simulation": rows.simulated,
    "repeats": repeats.repeats,
    "backfills": backfills.backfills,
    "soak": rows.soak,
}


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    return f"{os.cpu_count()} cores, {memory} GiB, {platform.system()} {platform.release()}"


def read_kept():
    return json.loads(KEPT.read_text()) if KEPT.exists() else {}


def page(kept, before):
    """The table, with all rows that were ever run here as of their last run, and those of `before` that were not."""
    when = sorted({(run["when"], run["seed"], run["scale"]) for run in kept.values()})
    runs = [text for text in before.splitlines() if text.startswith("Run on ")]
    runs += [f"Run on {day} with seed {seed} ({scale}): {machine()}; a build for tests, with fail points." for day, seed, scale in when]
    others = [text for text in before.splitlines() if text.startswith("| ") and text[2:].split(" ")[0] in ROWS.keys() - kept.keys()]
    name = lambda row: f"{row} ({kept[row]['when']}{'' if kept[row]['scale'] == 'full' else ', in short'})"
    lines = table([(name(row), each) for row in ROWS if row in kept for each in kept[row]["lines"]]).splitlines()
    return "\n".join([*dict.fromkeys(runs), "", *lines[:2], *others, *lines[2:]]) + "\n"


def table(lines):
    head = "| row | injected | times | events | lost | doubled | longest stall of other branches | recovery p50 / p99 | |\n"
    head += "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    cells = lambda told: [told[key] for key in ("injected", "count", "events", "lost", "doubled", "stall", "recovery", "note")]
    return head + "".join(f"| {name} | " + " | ".join(map(str, cells(told))) + " |\n" for name, told in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--write")
    arguments = parser.parse_args()
    scale = "short" if arguments.short else "full"
    print(f"seed {arguments.seed}, {scale}", flush=True)
    lines = []
    for name in filter(None, arguments.rows.split(",")):
        begin = time.monotonic()
        told = ROWS[name](scale, arguments.seed)
        kept = read_kept()
        before = kept.get(name)
        kept[name] = {"when": datetime.date.today().isoformat(), "seed": arguments.seed, "scale": scale, "lines": told}
        # A short run is no reason to forget a full one.
        if scale == "full" or before is None or before["scale"] == "short":
            KEPT.write_text(json.dumps(kept, indent=1))
        lines += [(name, each) for each in told]
        for each in told:
            print(f"{name} ({time.monotonic() - begin:.0f} s): {each}", flush=True)
    if arguments.write:
        path = ROOT / arguments.write
        head, before = path.read_text().split("<!-- table -->")
        path.write_text(f"{head}<!-- table -->\n\n{page(read_kept(), before)}")
    wrong = [name for name, told in lines if told["lost"] or told["doubled"]]
    if wrong:
        print(f"something was lost or doubled: {sorted(set(wrong))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
