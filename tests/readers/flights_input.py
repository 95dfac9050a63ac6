#!/usr/bin/env python3
"""Makes test inputs of the flights: copies, and disorder, both from a seed.

    flights_input.py FLIGHTS.tsv OUT.tsv [--seed N] [--shuffle]

Every tenth line is sent once more within the next 1,000 lines. With --shuffle the lines are then shuffled inside windows
of an hour of arrival (the scheduled time of the line, for a copy that of the line it follows), which begin at half past,
so that events of two hours mix. Prints the seed and what was made, as JSON.
"""

import argparse
import json
import random
import sys
from datetime import datetime, timezone

# In lines of the source. At most (820 + 820) / 10 copies of other lines come between: 984 lines of the output.
FARTHEST = 820
HOUR_S = 3600


def with_copies(lines, draw):
    """Pairs of (index of the line it arrives with, line)."""
    copies = {}
    for index in range(0, len(lines), 10):
        place = min(index + draw.randint(1, FARTHEST), len(lines) - 1)
        copies.setdefault(place, []).append(lines[index])
    for index, line in enumerate(lines):
        yield index, line
        for copy in copies.get(index, ()):
            yield index, copy


def window_of(line):
    """Number of the window of an hour, from half past to half past, that the line's time falls in."""
    text = line.split("\t", 1)[0]
    time = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    return (int(time.timestamp()) + HOUR_S // 2) // HOUR_S


def shuffled(lines, arrivals, draw):
    """The arrivals, shuffled inside each window."""
    window, held = None, []
    for index, line in arrivals:
        current = window_of(lines[index])
        if current != window:
            draw.shuffle(held)
            yield from held
            window, held = current, []
        held.append(line)
    draw.shuffle(held)
    yield from held


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shuffle", action="store_true")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with open(options.source, newline="", encoding="utf-8") as text:
        lines = text.read().splitlines(keepends=True)
    arrivals = with_copies(lines, draw)
    made = shuffled(lines, arrivals, draw) if options.shuffle else (line for _, line in arrivals)
    written = 0
    with open(options.out, "w", newline="", encoding="utf-8") as out:
        for line in made:
            out.write(line)
            written += 1
    summary = {"seed": options.seed, "lines": written, "unique": len(lines), "copies": written - len(lines)}
    print(json.dumps({**summary, "shuffled": options.shuffle}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
