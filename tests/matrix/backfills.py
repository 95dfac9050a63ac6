"""Backfills: runs to the end whose output has to equal a fold of their input in plain Python, row by row.

A run fails where it ends with another code than 0, has a dead letter, or takes more memory than it may.
"""

import datetime
import itertools
import json
import math
import shutil
import subprocess
import sys
import time
from collections import Counter

import fastavro

from kit import ROOT, TIDEMILL, Place, seeded
from rows import line

try:
    from compression import zstd
except ImportError:
    from backports import zstd

HOUR_MS = 3_600_000
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
START_MS = (datetime.datetime(2023, 1, 1, tzinfo=EPOCH.tzinfo) - EPOCH) // datetime.timedelta(milliseconds=1)
ISO = "%Y-%m-%dT%H:%M:%SZ"
FIELDS = {"id": "string", "at": {"type": "long", "logicalType": "timestamp-millis"}, "key": "string", "amount": "long"}
TYPE = '[types.{0}]\nschema = "event.avsc"\ntime = "at"\nid = ["id"]\n'
SOURCE = '[sources.events]\nkind = "file"\npaths = ["in/*.tsv"]\n'
PARSE = '[stages.parse]\nkind = "tsv"\nfrom = ["events"]\nworkers = 2\ntype_from = { column = 0 }\ntime = "epoch_ms"\n'
DEDUP = '[stages.dedup]\nkind = "dedup"\nfrom = ["parse"]\n'
ROWS = '[sinks.rows]\nkind = "avro_files"\nfrom = ["dedup"]\n'
COUNTS = '[stages.counts]\nkind = "hourly"\nfrom = ["{0}"]\ngroup_by = ["key"]\n'
COUNTS += 'measures = {{ events = "count()", amount = "sum(amount)" }}\n'
COUNTS += '[sinks.count_rows]\nkind = "avro_files"\nfrom = ["counts"]\n'
MOST_MIB = 512
# Runs a command and notes its peak. What Linux says of a child counts its parent until `exec`, so the parent is small.
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""
WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"]


def backfills(scale, seed):
    """All cases, one after the other; a line for each run."""
    lines, over = [], []
    for case in (days, hours, groups, ids, flights, copies):
        for each in case(scale == "full", seeded(seed)):
            print(f"  {each['injected']}: {each['lost']} lost, {each['doubled']} doubled; {each['note']}", flush=True)
            if each.pop("is_over"):
                over.append(each["injected"])
            lines.append(each)
    if over:
        raise SystemExit(f"more than {MOST_MIB} MiB: {over}")
    return lines


def binary():
    """A copy of the newer build: the release one, or that for tests."""
    builds = [path for path in ROOT.glob("target/*/tidemill") if path.parent.name in ("release", "debug")]
    newer = max(builds, key=lambda path: path.stat().st_mtime)
    copy = TIDEMILL.with_name(f"tidemill-{newer.parent.name}")
    if not copy.exists():
        print(f"  backfills run with the {newer.parent.name} build", flush=True)
        shutil.copy(newer, copy)
    return copy


def put(place, name, lines):
    path = place.dir / "in" / name
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as out:
        out.writelines(lines)


def topology(place, stages, types=("a",), fields=tuple(FIELDS), source=SOURCE):
    schema = {"type": "record", "name": "Event", "fields": [{"name": name, "type": FIELDS[name]} for name in fields]}
    (place.dir / "event.avsc").write_text(json.dumps(schema))
    place.write('[topology]\nname = "matrix"\n' + "".join(map(TYPE.format, types)) + source + PARSE + stages)


def run(place, settings=()):
    """Runs a backfill to its end: how many seconds it took, and MiB at its peak."""
    peak, program, begin = place.dir / "peak", binary(), time.monotonic()
    command = place.command("--until-end", "--fail-on-dead-letters", settings=("admin.listen=", *settings))
    command = [*WITH_PARENT, sys.executable, "-S", "-c", MEASURE, peak, *WITH_PARENT, program, *command[1:]]
    with open(place.dir / "log", "ab") as log:
        code = subprocess.call(command, cwd=place.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=7_200)
    if code != 0:
        raise SystemExit(f"exit {code}: {place.log()[-2_000:]}")
    return time.monotonic() - begin, int(peak.read_text()) / 1024


def within(is_full):
    """MiB for state, which are too few for what there is, in short as well."""
    mib = 64 if is_full else 1
    return f"with {mib} MiB for state", (f"runtime.state_memory={mib}MiB",)


def published(place):
    """The manifest and the folder of each hour that is published, of all sinks."""
    for path in place.dir.glob("out/**/_manifest.json"):
        manifest = json.loads(path.read_text())
        if not path.with_name("_SUCCESS").exists() or (manifest["event_type"] == "dead_letter" and manifest["count"]):
            raise SystemExit(f"{path.parent} has no _SUCCESS, or dead letters")
        yield manifest, path.parent


def records(manifest, folder):
    """Rows of an hour, as many as its manifest says."""
    count = 0
    for file in manifest["files"]:
        with open(folder / file["name"], "rb") as avro:
            for count, row in enumerate(fastavro.reader(avro), count + 1):
                yield row
    if count != manifest["count"]:
        raise SystemExit(f"{folder}: {count} rows, not {manifest['count']}")


def instant(ms):
    return EPOCH + datetime.timedelta(milliseconds=ms)


def parsed(text):
    return datetime.datetime.strptime(text, ISO).replace(tzinfo=EPOCH.tzinfo)


def events(place):
    """Type, hour and fields of each line of the input, file by file in the order of their names."""
    for path in sorted((place.dir / "in").iterdir(), key=bytes):
        with open(path, encoding="utf-8", newline="") as text:
            for row in text:
                kind, id_, at, key, amount = row[:-1].split("\t")
                yield kind, instant(int(at) // HOUR_MS * HOUR_MS), id_, instant(int(at)), key, int(amount)


def as_rows(taken):
    """What the sink `rows` has to have: sink, type, hour and values of each row, with how often it is there."""
    return Counter(("rows", kind, hour.strftime(ISO), *fields) for kind, hour, *fields in taken)


def as_counts(taken):
    """The same of `count_rows`: events and their amounts by hour, type and key."""
    sums = {}
    for kind, hour, _, _, key, amount in taken:
        events_, amounts = sums.get((hour, kind, key), (0, 0))
        sums[hour, kind, key] = events_ + 1, amounts + amount
    return Counter(("count_rows", "counts", of[0].strftime(ISO), *of, *measures) for of, measures in sums.items())


def compared(text, place, ran, lines, expected, most_mib=math.inf):
    """The line of a run whose rows are all compared."""
    rows = Counter()
    for manifest, folder in published(place):
        head = (manifest["sink"], manifest["event_type"], manifest["hour"]["start"])
        rows.update((*head, *row.values()) for row in records(manifest, folder))
    lost, more = expected - rows, rows - expected
    for row in [*list(lost)[:3], *list(more)[:3]]:
        print(f"  {'lost' if row in lost else 'beyond'}: {row}", flush=True)
    differ = sum(lost.values()), sum(more.values())
    return told(text, place, ran, lines, f"{sum(expected.values())} rows compared", *differ, most_mib)


def told(text, place, ran, lines, rows, lost, more, most_mib):
    seconds, peak = ran
    if lost or more:
        # Whoever looks for the reason needs it.
        place.keep = True
        print(f"left behind: {place.dir}", flush=True)
    size = sum(path.stat().st_size for path in (place.dir / "in").iterdir()) / 2**20
    note = f"{size:.1f} MiB read, {rows}, {lost + more} differences, {seconds:.1f} s, peak {peak:.0f} MiB"
    return line(text, 1, lines, lost, more, note=note) | {"is_over": peak > most_mib}


def days(is_full, dice):
    """Each hour of a type has events at its first and its last millisecond, and one more."""
    count = 365 if is_full else 30
    with Place() as place:
        for day in dice.sample(range(count), count):
            lines = []
            for hour, kind in itertools.product(range(24 * day, 24 * (day + 1)), "ab"):
                for n, offset in enumerate((0, HOUR_MS - 1, dice.randrange(HOUR_MS))):
                    at = START_MS + hour * HOUR_MS + offset
                    lines.append(f"{kind}\t{hour}-{n}\t{at}\tk\t{dice.randrange(99)}\n")
            dice.shuffle(lines)
            put(place, f"{instant(START_MS + 24 * day * HOUR_MS):%Y-%m-%d}.tsv", lines)
        topology(place, DEDUP + ROWS, types="ab")
        text = f"{count} daily files of two types, each in random order"
        yield compared(text, place, run(place), count * 24 * 2 * 3, as_rows(events(place)))


def hours(is_full, dice):
    count = 20_000 if is_full else 1_000
    with Place() as place:
        ats = [START_MS + hour * HOUR_MS + dice.randrange(HOUR_MS) for hour in range(count) for _ in range(3)]
        dice.shuffle(ats)
        put(place, "hours.tsv", (f"a\t{n}\t{at}\tk{n % 2}\t{dice.randrange(99)}\n" for n, at in enumerate(ats)))
        topology(place, DEDUP + ROWS + COUNTS.format("dedup"))
        ran, expected = run(place), as_rows(events(place)) + as_counts(events(place))
        text = f"one file of {count} hours with three rows each, in random order; one sink takes rows, another counts"
        yield compared(text, place, ran, len(ats), expected)


def groups(is_full, dice):
    """Each group has two events, far apart in the file."""
    memory, settings = within(is_full)
    for count, each in ((30, 5_000), (1, 1_000_000)) if is_full else ((3, 500), (1, 20_000)):
        with Place() as place:
            cells = 2 * list(range(count * each))
            dice.shuffle(cells)
            rows = (f"{START_MS + cell % count * HOUR_MS + cell % 997}\tgroup-{cell // count}" for cell in cells)
            put(place, "groups.tsv", (f"a\t{n}\t{row}\t{dice.randrange(-99, 99)}\n" for n, row in enumerate(rows)))
            topology(place, COUNTS.format("parse"))
            text = f"hours of {each} groups each, {count} in all, {memory}"
            yield compared(text, place, run(place, settings), len(cells), as_counts(events(place)), MOST_MIB)


def numbers(count):
    """Numbers below `count`, each for the hour that is its rest by 24. Some come once more, for another hour."""
    # Without a common divisor, each number has its turn.
    step = 7_368_787
    assert math.gcd(step, count) == 1
    for n in range(count):
        yield n * step % count, n * step % count % 24
        if n % 50 == 49:
            again = n * 48_271 % 2_147_483_647 % n * step % count
            yield again, (again + 1 + n // 50 % 23) % 24


def ids(is_full, _):
    """Counts of all hours are those of their manifests; rows of some hours (in short, of all) are read."""
    count, one_in = (50_000_000, 6) if is_full else (300_000, 1)
    with Place() as place:
        at = lambda number, hour: START_MS + hour * HOUR_MS + number % HOUR_MS
        put(place, "ids.tsv", (f"a\t{number}\t{at(number, hour)}\n" for number, hour in numbers(count)))
        topology(place, DEDUP + ROWS, fields=("id", "at"))
        memory, settings = within(is_full)
        ran = run(place, settings)
        counts, dropped, read = Counter(), 0, {}
        for manifest, folder in published(place):
            hour = (parsed(manifest["hour"]["start"]) - instant(START_MS)) // datetime.timedelta(hours=1)
            counts[hour] += manifest["count"]
            dropped += manifest["duplicates_dropped"]
            if hour % one_in == 0:
                read.setdefault(hour, []).extend(int(row["id"]) for row in records(manifest, folder))
        copies_ = count // 50
        # What manifests say of copies has to be true, too.
        lost, more = 0, abs(count + copies_ - sum(counts.values()) - dropped)
        for hour in {*range(24), *counts}:
            wanted = range(hour, count, 24) if 0 <= hour < 24 else ()
            known = min(counts[hour], len(wanted))
            if hour in read:
                known = sum(number in wanted for number in set(read[hour]))
            lost, more = lost + len(wanted) - known, more + counts[hour] - known
        rows = f"{sum(counts.values())} rows compared by hour ({sum(map(len, read.values()))} of them one by one)"
        text = f"{count} ids in one window of dedup, 2 % of them once more in another hour, {memory}"
        yield told(text, place, ran, count + copies_, rows, lost, more, MOST_MIB)


def flights(is_full, dice):
    """The real flights of a year through the topology that is shipped."""
    with Place() as place:
        lines = zstd.decompress((ROOT / "tests/data/flights.tsv.zst").read_bytes()).decode().splitlines(keepends=True)
        lines = lines if is_full else lines[:20_000]
        dice.shuffle(lines)
        put(place, "flights.tsv", lines)
        shipped = (ROOT / "topologies/flights.toml").read_text(encoding="utf-8")
        place.write(shipped.replace("flights/*.tsv*", "in/*.tsv").replace("schemas/", ""))
        shutil.copy(ROOT / "topologies/schemas/flight.avsc", place.dir)
        ran = run(place)
        expected, carriers = Counter(), {}
        for row in lines:
            values = [None if value == "NA" else value for value in row[:-1].split("\t")]
            values = [value and int(value) if n in (3, 7, 8, 9, 10) else value for n, value in enumerate(values)]
            values[0] = parsed(values[0])
            hour = values[0].replace(minute=0, second=0)
            expected["flights", "flight", hour.strftime(ISO), *values] += 1
            carriers.setdefault((hour, "flight", values[2]), []).append((values[10], values[8], values[7]))
        for of, rows in carriers.items():
            distances, arrivals, departures = ([value for value in each if value is not None] for each in zip(*rows))
            mean = sum(arrivals) / len(arrivals) if arrivals else None
            measures = len(rows), sum(distances), mean, max(departures, default=None)
            expected["carriers_files", "carriers", of[0].strftime(ISO), *of, *measures] += 1
        text = f"{len(lines)} flights of 2013 in random order, {len({of[0] for of in carriers})} hours in all"
        yield compared(text, place, ran, len(lines), expected)


def copies(is_full, dice):
    """A copy is in another file, and within the window of a day or farther off than `dedup` may reach."""
    count, names = 600_000 if is_full else 30_000, ("Z.tsv", "a10.tsv", "a9.tsv")
    with Place() as place:
        files = {name: [] for name in names}
        for n in range(count):
            at = START_MS + dice.randrange(72 * HOUR_MS)
            here, there = dice.sample(names, 2)
            files[here].append(f"a\t{n}\t{at}\t{here}\t{dice.randrange(99)}\n")
            if n % 20 == 0:
                far = 30 * HOUR_MS + dice.randint(1, 18 * HOUR_MS)
                off = far if n % 100 == 0 else dice.randint(1, 24) * HOUR_MS
                copy_at = at + dice.choice((-off, off))
                files[there].append(f"a\t{n}\t{copy_at}\t{there}\t{dice.randrange(99)}\n")
        for name in reversed(names):
            put(place, name, dice.sample(files[name], len(files[name])))
        # Small reads: files that took turns would be mixed.
        source = SOURCE + 'order = "name"\nread_size = "16KiB"\n'
        topology(place, DEDUP + 'keys = ["id"]\n' + ROWS + COUNTS.format("dedup"), source=source)
        ran = run(place)
        kept, taken = [], {}
        for event in events(place):
            before = taken.setdefault(event[2], [])
            if all(abs(event[3] - at) > datetime.timedelta(days=1) for at in before):
                before.append(event[3])
                kept.append(event)
        text = "three files in order of their names, 5 % copies that differ and lie in other hours: the first stays"
        expected = as_rows(kept) + as_counts(kept)
        yield compared(text, place, ran, sum(map(len, files.values())), expected)
