#!/usr/bin/env python3
"""What the row `sink` of the matrix does, done to Benthos, the engine of Redpanda Connect: one of four sinks is dead, then it comes back.

    tests/matrix/peer/compare.py [--events N] [--pairs N]

Needs Go besides what the matrix needs. Prints the share of its usual throughput that the other three keep, and what each sink has in the end. As there is
no dedup here, a sink's events are counted, and those of its ids that are missing.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = HERE.parents[2] / "target" / "tmp" / "python" / "bin" / "python"
if PYTHON.exists() and pathlib.Path(sys.prefix) != PYTHON.parents[1]:
    os.execv(PYTHON, [str(PYTHON), *sys.argv])
sys.path.append(str(HERE.parent))

from confluent_kafka import Consumer, TopicPartition  # noqa: E402
from kit import ROOT, Broker, Place, audit, killed, wait_until  # noqa: E402

PEER = ROOT / "target" / "tmp" / "peer"
# Nothing has come for so long: they stand still.
STILL_S = 30
PIPELINE = """
http: {{ enabled: false }}
logger: {{ level: WARN }}
input:
  broker:
    inputs: [ {{ file: {{ paths: [ "data/events-*.tsv" ], scanner: {{ lines: {{}} }} }} }} ]
    batching: {{ count: 1000, period: 10ms }}
output:
  broker:
    pattern: fan_out
    outputs:
      - file: {{ path: warehouse, codec: lines }}
      - file: {{ path: again, codec: lines }}
      - franz: {{ broker: "{alive}", topic: a }}
      - {last}
"""
WAITS = 'franz: {{ broker: "{other}", topic: b }}'
DROPS = 'drop_on: {{ error: true, back_pressure: 1s, output: {{ franz: {{ broker: "{other}", topic: b }} }} }}'


def lines(path):
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def in_topic(broker, topic):
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "peer", "enable.auto.commit": False})
    partition = TopicPartition(topic, 0, 0)
    end = consumer.get_watermark_offsets(partition, timeout=30)[1]
    consumer.assign([partition])
    found = []
    while len(found) < end:
        found += [message.value() for message in consumer.consume(10_000, 5) if message.error() is None]
    consumer.close()
    return found


def ids(rows):
    return Counter(row.split(b"\t", 2)[1].decode() for row in rows)


def run(data, truth, total, alive, other, last, is_dead):
    """Events a second of the other three (None: they stood still, after so many), and what each sink had in the end."""
    for broker, topic in ((alive, "a"), (other, "b")):
        broker.create(topic, 1)
    if is_dead:
        other.kill()
    with Place() as place:
        shutil.copytree(data.dir / "data", place.dir / "data")
        names = {"alive": alive.address, "other": other.address}
        (place.dir / "peer.yaml").write_text(PIPELINE.format(last=last.format(**names), **names))
        begin = time.monotonic()
        with open(place.dir / "log", "w") as log:
            process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", PEER, "-c", "peer.yaml"], cwd=place.dir, stdout=log, stderr=log)
        reached, moved, ended = 0, begin, False
        while reached < total and time.monotonic() - moved < STILL_S and not ended:
            ended = process.poll() is not None
            now = min(len(lines(place.dir / name)) for name in ("warehouse", "again"))
            if now != reached:
                reached, moved = now, time.monotonic()
            time.sleep(0.05)
        took = moved - begin
        rate = total / took if reached >= total else None
        if is_dead:
            other.start()
        try:
            code = process.wait(300)
        except subprocess.TimeoutExpired:
            killed(process)
            code = "none, it did not end within 300 s"
        found = {"warehouse": ids(lines(place.dir / "warehouse")), "again": ids(lines(place.dir / "again"))}
        found |= {"a": ids(in_topic(alive, "a")), "b": ids(in_topic(other, "b"))}
        return rate, reached, code, {name: audit(truth, each)[0] for name, each in found.items()}, {name: sum(each.values()) - total for name, each in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    subprocess.run(["go", "build", "-o", PEER, "."], cwd=HERE, check=True)
    with Place() as data:
        truth = data.generate(arguments.events, arguments.seed)
        total = sum(len(lines(path)) for path in (data.dir / "data").glob("events-*.tsv"))
        for name, last in (("waits", WAITS), ("drop_on", DROPS)):
            ratios = []
            for _ in range(arguments.pairs):
                rates = []
                for is_dead in (False, True):
                    alive, other = Broker(), Broker()
                    rate, reached, code, missing, more = run(data, truth, total, alive, other, last, is_dead)
                    [broker.remove() for broker in (alive, other)]
                    rates.append(rate)
                    said = f"{rate:.0f} events/s" if rate else f"the others stood still at {reached} of {total} events"
                    print(f"{name}, {'dead' if is_dead else 'alive'}: {said}; exit {code}; ids missing {missing}, events more than came {more}", flush=True)
                ratios.append(0.0 if rates[1] is None else rates[1] / rates[0])
            print(f"{name}: the others keep {statistics.median(ratios):.2f} of their throughput ({min(ratios):.2f} to {max(ratios):.2f}, {arguments.pairs} pairs)", flush=True)


if __name__ == "__main__":
    main()
