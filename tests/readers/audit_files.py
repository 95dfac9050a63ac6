#!/usr/bin/env python3
"""Reads everything that Tidemill has published below an output root, and says where it is not what it claims to be.

    audit_files.py OUTPUT_ROOT [--truth truth.json [--hourly-counts TYPE.MEASURE]] [--expect-unique-field FIELD]
                   [--json | --rows] [--jobs N]

For every hour: the manifest against its checksum and that in `_SUCCESS`, every file that it names, its rows, bytes, SHA-256,
schema, codec, id hash, least and greatest time, and that the times are in the hour; files that are missing or not named.
With --truth: per type and hour, count and id hash of all files together against what the generator says it made.
With --hourly-counts: per type and hour, the measure summed up over the hourly rows of TYPE, against the truth's count too.
With --expect-unique-field: no value of the field is there twice in a type (types without the field are passed over).

Prints a line a type and a summary (--json: everything, per hour; --rows: instead of the types, every row as JSON behind its type
and hour, sorted). Exits 1 with a list when there are differences.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

from id_hash import ALGORITHM, hex_sum
from published import MANIFEST, REVISION, SUCCESS, checksum_of, ms_of, read_part, sha256, text_of, walk

SHOWN = 50
DEAD_LETTERS = "dead_letter"
# What a manifest says of each file.
OF_A_FILE = ("rows", "bytes", "sha256", "schema_fingerprint", "codec")


class Audit:
    """Hours found, and what is wrong with them."""

    def __init__(self, root, unique_field, hourly_counts, with_rows):
        self.root = Path(root)
        self.unique_field = unique_field
        self.hourly, self.measure = hourly_counts or (None, None)
        self.with_rows = with_rows
        self.differences = []
        self.hours = []
        self.digests = defaultdict(list)
        self.sums = Counter()
        self.rows = []
        self.files = 0
        self.bytes = 0

    def differ(self, where, what):
        self.differences.append(f"{where}: {what}")

    def collect(self):
        """Reads the manifests, and lists the files to be read."""
        jobs = []
        for folder, names in walk(self.root):
            where = str(folder.relative_to(self.root))
            if not REVISION.match(folder.name):
                for name in names:
                    if name.endswith(".avro") or name in (MANIFEST, SUCCESS):
                        self.differ(where, f"{name} is outside of any revision")
                continue
            hour = self.hour_of(folder, where, names)
            if hour is None:
                continue
            named = {part["name"] for part in hour["claimed"]}
            for name in sorted(set(names) - named - {MANIFEST, SUCCESS}):
                self.differ(where, f"{name} is not in the manifest")
            for name in sorted(named - set(names)):
                self.differ(where, f"{name} is in the manifest and not there")
            for name in sorted(named & set(names)):
                measure = self.measure if hour["type"] == self.hourly else None
                of_hour = (hour["id_fields"], hour["time_field"], self.unique_field, measure, self.with_rows)
                jobs.append((str(folder / name), *of_hour))
            self.hours.append(hour)
        return jobs

    def hour_of(self, folder, where, names):
        """What a manifest claims; `None` when there is no valid one."""
        for name in (SUCCESS, MANIFEST):
            if name not in names:
                self.differ(where, f"{name} is not there, so that readers do not see the hour")
                return None
        raw = (folder / MANIFEST).read_bytes()
        if (folder / SUCCESS).read_bytes() != sha256(raw).encode() + b"\n":
            self.differ(where, f"{SUCCESS} does not hold the SHA-256 of {MANIFEST}")
        try:
            manifest = json.loads(raw)
            if (manifest["format"], manifest["version"]) != ("tidemill-manifest", 1):
                self.differ(where, f"{MANIFEST} is of a format that is not known here")
                return None
            if manifest["checksum"] != checksum_of(raw):
                self.differ(where, f"the checksum in {MANIFEST} is not its own")
            if manifest["path"] != where:
                self.differ(where, f"{MANIFEST} is that of {manifest['path']}")
            ids = manifest["ids"] or {"algorithm": ALGORITHM, "fields": [], "sum": hex_sum(0)}
            if ids["algorithm"] != ALGORITHM:
                self.differ(where, f"the id hash is {ids['algorithm']}, not {ALGORITHM}")
            return {
                "where": where,
                "type": manifest["event_type"],
                "start": ms_of(manifest["hour"]["start"]),
                "end": ms_of(manifest["hour"]["end"]),
                "id_fields": ids["fields"],
                "time_field": manifest["event_time"]["field"],
                "duplicates": manifest["duplicates_dropped"],
                "claimed": [{key: part[key] for key in ("name", *OF_A_FILE)} for part in manifest["files"]],
                "claims": {
                    "count": manifest["count"],
                    "ids": ids["sum"],
                    "min": manifest["event_time"]["min"],
                    "max": manifest["event_time"]["max"],
                },
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.differ(where, f"{MANIFEST} can't be read: {type(error).__name__}: {error}")
            return None

    def compare(self, parts):
        """Compares the files with what the manifests claim."""
        for hour in self.hours:
            where, total, ids, low, high = hour["where"], 0, 0, [], []
            for claim in hour["claimed"]:
                part = parts.get(str(self.root / where / claim["name"]))
                if part is None:
                    continue
                self.files += 1
                self.bytes += part["bytes"]
                place = f"{where}/{claim['name']}"
                if "error" in part:
                    self.differ(place, f"can't be read: {part['error']}")
                    continue
                for key in OF_A_FILE:
                    if part[key] != claim[key]:
                        self.differ(place, f"{key} is {part[key]}, the manifest has {claim[key]}")
                total += part["rows"]
                ids += part["ids"]
                if part["rows"]:
                    low.append(part["min"])
                    high.append(part["max"])
                self.digests[hour["type"]].append((place, part["unique"]))
                self.sums.update(part["sums"])
                of_hour = f"{hour['type']} {text_of(hour['start'])}"
                self.rows += [f"{of_hour} {json.dumps(record, default=repr)}" for record in part["records"]]
            found = {
                "count": total,
                "ids": hex_sum(ids),
                "min": text_of(min(low, default=None)),
                "max": text_of(max(high, default=None)),
            }
            for key, value in found.items():
                if value != hour["claims"][key]:
                    self.differ(where, f"{key} is {value}, the manifest has {hour['claims'][key]}")
            # A dead letter that came too late for its hour is in the next open one: its time may be before the hour.
            first = hour["start"] if hour["type"] != DEAD_LETTERS else min(low, default=0)
            if low and not first <= min(low) <= max(high) < hour["end"]:
                self.differ(where, f"holds events of other hours, from {found['min']} to {found['max']}")
            hour["rows"], hour["id_sum"] = total, ids

    def per_hour(self):
        """(type, start of the hour) to rows and sum of ids, over all folders."""
        totals = defaultdict(lambda: [0, 0])
        for hour in self.hours:
            total = totals[hour["type"], hour["start"]]
            total[0] += hour["rows"]
            total[1] += hour["id_sum"]
        return totals

    def compare_with_truth(self, truth):
        """Compares all files of a type and hour together with what the generator made."""
        found = self.per_hour()
        unique, ids_of_all = 0, 0
        for name, hours in truth["types"].items():
            for start, of_hour in hours.items():
                unique += of_hour["count"]
                ids_of_all += int(of_hour["ids"], 16)
                rows, ids = found.pop((name, ms_of(start)), (0, 0))
                if rows != of_hour["count"]:
                    self.differ(f"{name} {start}", f"{rows} rows, the truth has {of_hour['count']}")
                if hex_sum(ids) != of_hour["ids"]:
                    self.differ(f"{name} {start}", f"the ids sum to {hex_sum(ids)}, the truth has {of_hour['ids']}")
        for name, start in found:
            if name in truth["types"]:
                self.differ(f"{name} {text_of(start)}", "the truth has no such hour")
        if (unique, hex_sum(ids_of_all)) != (truth["unique"], truth["ids"]):
            self.differ("truth", "its hours do not add up to its totals")

    def compare_hourly_with_truth(self, truth):
        """Compares the sums of the measure with what the generator made, also where only one of them has any."""
        counts = {(name, ms_of(start)): of["count"] for name, hours in truth["types"].items() for start, of in hours.items()}
        for name, start in sorted(counts.keys() | self.sums.keys()):
            found, made = self.sums.get((name, start), 0), counts.get((name, start), 0)
            if found != made:
                where = f"{self.hourly} of {name} {text_of(start)}"
                self.differ(where, f"{self.measure} sums to {found}, the truth has {made}")

    def check_unique(self):
        """Looks for values that are there more than once in a type."""
        looked_at = 0
        for name, parts in sorted(self.digests.items()):
            counts = Counter()
            for _, digests in parts:
                looked_at += len(digests) // 16
                counts.update(digests[at : at + 16] for at in range(0, len(digests), 16))
            repeated = {digest for digest, count in counts.items() if count > 1}
            if not repeated:
                continue
            of_parts = ((place, {digests[at : at + 16] for at in range(0, len(digests), 16)}) for place, digests in parts)
            places = [place for place, held in of_parts if held & repeated]
            shown = ", ".join(places[:4]) + (", ..." if len(places) > 4 else "")
            self.differ(name, f"{len(repeated)} values of {self.unique_field} are there more than once, in {shown}")
        if not looked_at:
            self.differ("unique", f"no type has a field {self.unique_field}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--truth")
    parser.add_argument("--expect-unique-field")
    parser.add_argument("--hourly-counts", type=lambda text: text.split(".", 1))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.hourly_counts and not options.truth:
        parser.error("--hourly-counts needs --truth")
    began = time.monotonic()

    audit = Audit(options.root, options.expect_unique_field, options.hourly_counts, options.rows)
    jobs = audit.collect()
    jobs.sort(key=lambda job: -os.path.getsize(job[0]))
    with multiprocessing.Pool(options.jobs) as pool:
        chunk = 1 + len(jobs) // (options.jobs * 64)
        parts = {part["path"]: part for part in pool.imap_unordered(read_part, jobs, chunk)}
    audit.compare(parts)
    if options.truth:
        truth = json.loads(Path(options.truth).read_text(encoding="utf-8"))
        audit.compare_with_truth(truth)
        if options.hourly_counts:
            audit.compare_hourly_with_truth(truth)
    if options.expect_unique_field:
        audit.check_unique()
    if not audit.hours:
        audit.differ(options.root, "no published hour")

    types = defaultdict(lambda: {"hours": set(), "rows": 0, "duplicates": 0})
    duplicates = {}
    for hour in audit.hours:
        of_type = types[hour["type"]]
        of_type["hours"].add(hour["start"])
        of_type["rows"] += hour["rows"]
        duplicates[hour["type"], hour["start"]] = hour["duplicates"]  # of the hour, whichever of its folders
    for (name, _), dropped in duplicates.items():
        types[name]["duplicates"] += dropped
    rows = sum(of_type["rows"] for of_type in types.values())
    hours = sum(len(of_type["hours"]) for of_type in types.values())
    if options.json:
        per_hour = [
            {"type": name, "hour": text_of(start), "rows": count, "ids": hex_sum(ids)}
            for (name, start), (count, ids) in sorted(audit.per_hour().items())
        ]
        report = {"rows": rows, "hours": hours, "files": audit.files, "bytes": audit.bytes}
        json.dump({**report, "per_hour": per_hour, "differences": audit.differences}, sys.stdout, indent=1)
        print()
    else:
        for row in sorted(audit.rows):
            print(f"ROW {row}")
        for name, of_type in sorted(types.items()) if not options.rows else []:
            dropped = f", {of_type['duplicates']:,} duplicates dropped" if of_type["duplicates"] else ""
            print(f"{name}: {len(of_type['hours']):,} hours, {of_type['rows']:,} rows{dropped}")
        for difference in audit.differences[:SHOWN]:
            print(f"DIFFERENCE {difference}")
        if len(audit.differences) > SHOWN:
            print(f"... and {len(audit.differences) - SHOWN} more; --json has them all")
        verdict = f"{len(audit.differences)} DIFFERENCES" if audit.differences else "no differences"
        took = time.monotonic() - began
        size = f"{audit.files:,} files, {audit.bytes / 1e6:,.1f} MB"
        print(f"audit: {len(types)} types, {hours:,} hours, {rows:,} rows, {size}: {verdict} ({took:.1f} s)")
    return 1 if audit.differences else 0


if __name__ == "__main__":
    sys.exit(main())
