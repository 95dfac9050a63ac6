#!/usr/bin/env python3
"""Three tiers under three times the load that the machine can bear: what becomes of the time to delivery of each.

    tests/matrix/overload.py [--binary FILE] [--seconds N] [--level N] [--runs N]

Generated events of 20 types come to one parser; each tier has a pond, a `dedup` and hourly files of its own. First the machine's capacity is measured: events a
second when there is no limit. Then events come at a fifth of it, and at three times of it, for so many seconds; for the latter also with all types of one tier.
The time to delivery is from the arrival of an event to the commit of the cut that has it in the files (`delivery` in the status). That of a type of the tier
`high` does not include the time that the source was behind its rate, which is told, too. Of tiers that are behind, it is that of what was delivered when the source came to
its end. At the end of each run every event has to be there.

Files are compressed so well (zstandard, level 19) that this is what most of the work is: parsing and ponds have to keep up with three times the capacity, too,
and one stream can't be parsed by tiers.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIERS = {
    "high": ["search_submitted", "ad_played"],
    "normal": ["session_started", "session_ended", "playlist_opened", "album_opened", "track_liked", "queue_changed", "podcast_played"],
}
LOW = [
    "track_played", "track_started", "track_skipped", "track_paused", "track_resumed", "artist_followed", "playlist_saved",
    "lyrics_opened", "podcast_finished", "share_sent", "device_changed",
]


def types():
    """All types of the quickstart, by the order of their tables."""
    text = (ROOT / "topologies" / "quickstart.toml").read_text()
    return [line[len("[types."):-1] for line in text.splitlines() if line.startswith("[types.")]


def topology(events, rate, level, tiered):
    known = types()
    tier_of = {name: tier for tier, names in TIERS.items() for name in names}
    lines = ['[topology]\nname = "overload"\n']
    lines.append(f'[sources.listening]\nkind = "generate"\nevents = {events}\nrate = {rate}\nhours = 3\nseed = 1\n')
    lines.append('[stages.parse]\nkind = "tsv"\nfrom = ["listening"]\ntype_from = { column = 0 }\ntime = "epoch_ms"\n')
    for tier in ["high", "normal", "low"]:
        names = [name for name in known if tier_of.get(name, "low") == tier]
        lines.append(f'[stages.{tier}]\nkind = "dedup"\nfrom = ["parse"]\ntypes = {json.dumps(names)}\npond = {{ max_bytes = "32GiB" }}\n')
        lines.append(f'[sinks.{tier}_files]\nkind = "avro_files"\nfrom = ["{tier}"]\nlevel = {level}\n')
    for name in known:
        tier = tier_of.get(name, "low") if tiered else "normal"
        lines.append(f'[types.{name}]\nschema = "listening.avsc"\ntime = "event_time"\nid = ["event_id"]\ntier = "{tier}"\n')
    return "\n".join(lines)


def percentile(delivery, share):
    """By the buckets, in milliseconds: straight lines between their bounds."""
    wanted, below, from_ms = share * delivery["events"], 0, 0
    for bound_ms, within in delivery["within"]:
        if within >= wanted:
            return from_ms + (bound_ms - from_ms) * (wanted - below) / max(within - below, 1)
        below, from_ms = within, bound_ms
    return float("inf")


class Run:
    def __init__(self, binary, events, rate, level, tiered):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="overload-"))
        self.events, self.rate = events, rate
        shutil.copy(ROOT / "topologies" / "schemas" / "listening.avsc", self.place)
        (self.place / "overload.toml").write_text(topology(events, rate, level, tiered))
        command = [str(binary), "run", "overload.toml", "--until-end", "--progress", "none", "--set", "admin.listen=127.0.0.1:0"]
        self.binary, self.log = binary, open(self.place / "log", "w+")
        self.begin = time.monotonic()
        self.process = subprocess.Popen(command, cwd=self.place, stdout=self.log, stderr=self.log)

    def status(self):
        owner = self.place / ".tidemill" / "overload" / "lock"
        try:
            address = json.loads(owner.read_text())["admin"]
            with urllib.request.urlopen(f"http://{address}/status", timeout=5) as answer:
                return json.load(answer)
        except (OSError, ValueError, KeyError):
            return None

    def watch(self):
        """Until it ends. What sinks had delivered when the source came to its end, and in all; how far the source was behind its rate."""
        at_end, last, behind_s = None, None, 0.0
        while self.process.poll() is None:
            status, now = self.status(), time.monotonic()
            if status:
                last = status
                source = next(source for source in status["sources"] if source["name"] == "listening")
                read = sum(stage["tally"]["received"] for stage in status["stages"] if stage["name"] == "parse")
                if self.rate and not source["ended"]:
                    behind_s = max(behind_s, (now - self.begin) - read / self.rate)
                if source["ended"] and at_end is None:
                    at_end = (now - self.begin, status)
            time.sleep(0.2)
        if self.process.returncode != 0:
            self.log.seek(0)
            raise SystemExit(self.log.read()[-3_000:])
        return at_end or (time.monotonic() - self.begin, last), time.monotonic() - self.begin, behind_s

    def rows(self):
        said = subprocess.run([self.binary, "verify", "out", "--json"], cwd=self.place, capture_output=True, text=True)
        report = json.loads(said.stdout)
        if said.returncode != 0:
            raise SystemExit(str(report["faults"][:3]))
        return report["rows"]


    def duplicates(self):
        """That were dropped, by the manifests."""
        found = [json.loads(path.read_text()) for path in (self.place / "out").rglob("_manifest.json")]
        return sum(manifest["duplicates_dropped"] for manifest in found if manifest["event_type"] != "dead_letter")


def delivered(status):
    return {stage["name"].removesuffix("_files"): stage["delivery"] for stage in status["stages"] if stage["name"].endswith("_files")}


def measure(title, arguments, events, rate, tiered=True):
    run = Run(arguments.binary, events, rate, arguments.level, tiered)
    (source_s, at_end), total_s, behind_s = run.watch()
    rows, duplicates = run.rows(), run.duplicates()
    complete = "complete" if rows + duplicates == events else f"{events - rows - duplicates} MISSING"
    cells = []
    for tier, delivery in delivered(at_end).items():
        if delivery["events"]:
            cells.append(f"{tier} {delivery['events']:>9,} p50 {percentile(delivery, 0.5) / 1e3:6.2f} s p99 {percentile(delivery, 0.99) / 1e3:6.2f} s")
    print(f"{title:22} {rate or 0:>9,}/s  source {source_s:5.1f} s (at most {behind_s:.2f} s behind)  all {total_s:6.1f} s  {rows:,} rows, {complete}")
    for cell in cells:
        print(f"{'':22}   {cell}")
    shutil.rmtree(run.place, ignore_errors=True)
    if complete != "complete":
        raise SystemExit("events are missing, or there are too many")
    return events / total_s


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=ROOT / "target" / "release" / "tidemill", type=pathlib.Path)
    parser.add_argument("--seconds", default=30, type=int)
    parser.add_argument("--level", default=19, type=int)
    parser.add_argument("--runs", default=1, type=int)
    arguments = parser.parse_args()
    for _ in range(arguments.runs):
        capacity = measure("without a limit", arguments, 1_500_000, 0)
        rate = lambda times: int(capacity * times)
        measure("a fifth", arguments, rate(0.2) * arguments.seconds, rate(0.2))
        measure("three times", arguments, rate(3) * arguments.seconds, rate(3))
        measure("three times, one tier", arguments, rate(3) * arguments.seconds, rate(3), tiered=False)


if __name__ == "__main__":
    main()
