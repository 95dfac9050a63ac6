#!/usr/bin/env python3
"""What must come out of the flights, counted from the text: flights per hour, per carrier, and per hour and carrier.

    flights_expected.py FLIGHTS.tsv     lines `hour|carrier|both <TAB> key <TAB> count`, sorted; the same text as
                                        flights_expected.sh makes with cut, sort and uniq
"""

import csv
import sys
from collections import Counter


def rows_of(path):
    """The lines of the source as lists of columns."""
    with open(path, newline="", encoding="utf-8") as text:
        yield from csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)


def expected(path):
    """Counter of (what, key)."""
    counts = Counter()
    for row in rows_of(path):
        hour, carrier = row[0][:13], row[2]
        counts["hour", hour] += 1
        counts["carrier", carrier] += 1
        counts["both", f"{hour} {carrier}"] += 1
    return counts


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 64
    lines = (f"{what}\t{key}\t{count}" for (what, key), count in expected(sys.argv[1]).items())
    print("\n".join(sorted(lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
