#!/usr/bin/env python3
"""The fault matrix: does to Tidemill what happens to it in the field, and counts what is lost and what is doubled.

    tests/matrix/matrix.py [--short] [--seed N] [--rows NAME,NAME] [--write docs/faults.md]

Needs what the tests need (Java, Python packages of `tests/audit/requirements.txt`), and a build: `cargo build --workspace --all-targets`; run
`cargo test --workspace` once, which fetches the rest. Exits with 1 when anything was lost or doubled.
"""

import argparse
import datetime
import os
import pathlib
import platform
import subprocess
import sys
import time

PYTHON = pathlib.Path(__file__).resolve().parents[2] / "target" / "tmp" / "python" / "bin" / "python"
if PYTHON.exists() and pathlib.Path(sys.prefix) != PYTHON.parents[1]:
    os.execv(PYTHON, [str(PYTHON), *sys.argv])

import rows  # noqa: E402
from kit import ROOT  # noqa: E402

TAKE_OVER = ["take_over::"]
POISON = ["suspects::", "faults::a_poison", "faults::an_event_that"]
NO_ROOM = ["no_room::"]
ROWS = {
    "kills": rows.kills,
    "workers": rows.in_process,
    "broker": rows.broker_trouble,
    "sink": rows.dead_sink,
    "damage": rows.damage,
    "no-room": lambda scale, seed: rows.of_tests("disk full while staging, in a cut and in a pond; then room again", NO_ROOM, scale, ""),
    "zombies": lambda scale, seed: rows.of_tests("a frozen process taken over at each step of a publication; one that can't be killed", TAKE_OVER, scale, ""),
    "poison": lambda scale, seed: rows.of_tests("an event that panics, hangs, or ends the process", POISON, scale, ""),
    "simulation": rows.simulated,
}


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    return f"{os.cpu_count()} cores, {memory} GiB, {platform.system()} {platform.release()}"


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
    for name in arguments.rows.split(","):
        begin = time.monotonic()
        for told in ROWS[name](scale, arguments.seed):
            lines.append((name, told))
            print(f"{name} ({time.monotonic() - begin:.0f} s): {told}", flush=True)
    if arguments.write:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        when = datetime.date.today().isoformat()
        path = ROOT / arguments.write
        before = path.read_text().split("<!-- table -->")[0]
        told = f"Run on {when} at {commit} with seed {arguments.seed}: {machine()}, debug build with fail points.\n\n"
        path.write_text(f"{before}<!-- table -->\n\n{told}{table(lines)}")
    wrong = [name for name, told in lines if told["lost"] or told["doubled"]]
    if wrong:
        print(f"something was lost or doubled: {sorted(set(wrong))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
