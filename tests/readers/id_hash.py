#!/usr/bin/env python3
"""The order-free hash of ids, written from its description alone, and a check of the published vectors.

Key bytes of an event: for each id field, the length of its bytes as an unsigned 32-bit little-endian number, then its
bytes. Id hash of a set of events: the sum modulo 2^128 of XXH3-128 (seed 0) of their key bytes, as 32 hex digits.

    id_hash.py [VECTORS.json]      exits 1 when a vector differs
"""

import json
import struct
import sys
from pathlib import Path

from xxhash import xxh3_128_intdigest

ALGORITHM = "sum128-xxh3_128-v1"
MASK = (1 << 128) - 1
VECTORS = Path(__file__).resolve().parents[2] / "crates/core/src/id_hash_vectors.json"

_length = struct.Struct("<I").pack
_long = struct.Struct("<q").pack
_double = struct.Struct("<d").pack


def value_bytes(avro_type):
    """The function that makes the bytes of a value of that Avro type, as read without logical types."""
    logical = avro_type.get("logicalType") if isinstance(avro_type, dict) else None
    name = avro_type["type"] if isinstance(avro_type, dict) else avro_type
    if logical == "decimal":
        return lambda value: int.from_bytes(value, "big", signed=True).to_bytes(16, "little", signed=True)
    if name in ("string", "enum"):
        return str.encode
    if name in ("bytes", "fixed"):
        return bytes
    if name in ("int", "long"):
        return _long
    if name in ("float", "double"):
        return _double
    if name == "boolean":
        return lambda value: b"\1" if value else b"\0"
    raise ValueError(f"a field of type {avro_type} can't be part of an id")


def key_hash(parts):
    """Hash of one event, given the bytes of its id fields."""
    return xxh3_128_intdigest(b"".join(_length(len(part)) + part for part in parts))


def hex_sum(total):
    """The text form of a sum of hashes."""
    return format(total & MASK, "032x")


def hasher(schema, fields):
    """The function from a record of `schema` (a record schema) to the hash of its id `fields`."""
    types = {field["name"]: field["type"] for field in schema["fields"]}
    encoders = [(name, value_bytes(types[name])) for name in fields]
    if len(encoders) == 1 and encoders[0][1] is str.encode:
        name = encoders[0][0]

        def of_text(record):
            text = record[name].encode()
            return xxh3_128_intdigest(_length(len(text)) + text)

        return of_text
    return lambda record: key_hash([encode(record[name]) for name, encode in encoders])


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else VECTORS
    vectors = json.loads(path.read_text(encoding="utf-8"))
    wrong = 0
    for ids, expected in vectors:
        found = hex_sum(sum(key_hash([text.encode()]) for text in ids))
        if found != expected:
            wrong += 1
            print(f"{ids}: {expected} is published, {found} is right")
    print(f"id hash: {len(vectors)} vectors, {wrong} wrong")
    return 1 if wrong or not vectors else 0


if __name__ == "__main__":
    sys.exit(main())
