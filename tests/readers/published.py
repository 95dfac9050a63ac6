"""Published hours as they lie on disk: which there are, what their manifests claim, what their files hold.

Nothing here comes from Tidemill but the description of its layout: Avro is read by fastavro, ids are hashed by xxhash.
"""

import gc
import hashlib
import io
import json
import os
import re
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path

import fastavro
import fastavro.read
from xxhash import xxh3_128_digest

from id_hash import hasher

MANIFEST, SUCCESS = "_manifest.json", "_SUCCESS"
# What is before this in a manifest is what its checksum, the last member, is of.
CHECKSUM = b',\n  "checksum": "'
REVISION = re.compile(r"rev=\d+\Z")
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# Times, dates and decimals as the numbers and bytes that are in the file: what ids are made of, and several times faster.
fastavro.read.LOGICAL_READERS.clear()


def ms_of(text):
    """Milliseconds since 1970 of an RFC 3339 time in UTC."""
    if not text.endswith("Z"):
        raise ValueError(f"{text!r} is not a time in UTC")
    whole, _, fraction = text[:-1].partition(".")
    time = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return (time - EPOCH) // timedelta(milliseconds=1) + int(fraction.ljust(3, "0")[:3] or 0)


def text_of(time_ms):
    """RFC 3339 in UTC, with as many digits of the second as needed."""
    if time_ms is None:
        return None
    time = (EPOCH + timedelta(milliseconds=time_ms)).replace(tzinfo=None)
    fraction = f".{time_ms % 1000:03d}".rstrip("0") if time_ms % 1000 else ""
    return time.isoformat(timespec="seconds")[:19] + fraction + "Z"


def walk(root):
    """Every folder below `root` with its files, without those whose names begin with a dot."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), sorted(name for name in files if not name.startswith("."))


def checksum_of(manifest):
    """The checksum that a manifest of this text should hold."""
    return sha256(manifest[: manifest.rfind(CHECKSUM)])


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def read_part(job):
    """What one file holds: a dict, or one with `error`.

    `job` is (path, id fields, time field, unique field or None, measure or None, whether rows are wanted). A measure is
    summed up for each `event_type` and `hour`, as hourly rows have them.
    """
    path, id_fields, time_field, unique_field, measure, with_rows = job
    gc.disable()  # records hold no cycles, and looking for some takes a third of the time
    data = Path(path).read_bytes()
    found = {"path": path, "bytes": len(data), "sha256": sha256(data), "rows": 0, "ids": 0, "min": None, "max": None}
    found |= {"sums": Counter(), "records": []}
    try:
        reader = fastavro.block_reader(io.BytesIO(data))
        schema = reader.writer_schema
        found["codec"] = reader.codec
        canonical = fastavro.schema.to_parsing_canonical_form(schema)
        found["schema_fingerprint"] = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
        hash_of = hasher(schema, id_fields) if id_fields else None
        times = next(field["type"] for field in schema["fields"] if field["name"] == time_field)
        per_ms = {"timestamp-millis": 1, "timestamp-micros": 1000}[times["logicalType"]]
        digests, low, high = [], None, None
        for block in reader:
            records = list(block)
            if not records:
                continue
            found["rows"] += len(records)
            if measure is not None:
                for record in records:
                    found["sums"][record["event_type"], record["hour"]] += record[measure]
            if with_rows:
                found["records"] += records
            if hash_of:
                found["ids"] += sum(map(hash_of, records))
            of_block = [record[time_field] for record in records]
            first, last = min(of_block), max(of_block)
            low = first if low is None or first < low else low
            high = last if high is None or last > high else high
            if unique_field is not None and unique_field in records[0]:
                digests += [xxh3_128_digest(repr(record[unique_field]).encode()) for record in records]
        found["unique"] = b"".join(digests)
        found["min"], found["max"] = (None, None) if low is None else (low // per_ms, high // per_ms)
    except Exception as error:  # whatever a damaged file makes the reader do, it is a finding, not a crash
        found["error"] = f"{type(error).__name__}: {error}"
    return found
