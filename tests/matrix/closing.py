#!/usr/bin/env python3
"""How long after its end an hour is published: minutes for hours, a real Apache Kafka, live events.

    tests/matrix/closing.py [--minutes N] [--seed N]

Three types. `busy` has events in each of the 12 partitions of a topic all the time, `sparse` one event in 20 s in any of them. `stuck` comes from another topic, one of whose two
partitions can't be read: retention took what was not read yet. `hosts` comes from three hosts in a topic of one partition, one of which dies three seconds before the end of a
minute, two minutes on, and is waited for for its lease. At the end nothing comes any more, so that the last minute closes by the clock. The delay of an hour is
from its end and the allowed lateness to the instant at which its `_SUCCESS` is there (its change time). Prints a table and histograms, by type.

Needs what the tests need, and a release build (`cargo build --release`) or else takes the debug one.
"""

import argparse
import json
import random
import time

import of_tests  # noqa: F401 - before all that comes from packages
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from kit import Broker, Place, ended, percentile, wait_until

LATENESS_S, HOLD_S, LEASE_S = 2, 30, 20
SCHEMA = {
    "type": "record",
    "name": "Event",
    "fields": [{"name": "id", "type": "string"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}],
}
HOST_SCHEMA = {**SCHEMA, "fields": [*SCHEMA["fields"], {"name": "host", "type": "string"}]}
TYPE = '[types.{0}]\nschema = "event.avsc"\ntime = "at"\nid = ["id"]\ncomes_from = ["events/{1}"]\n'
TOPOLOGY = f"""
[topology]
name = "matrix"
bucket = "1m"
allowed_lateness = "{LATENESS_S}s"
hold_at_most = "{HOLD_S}s"
{TYPE.format("busy", "live")}{TYPE.format("sparse", "live")}{TYPE.format("stuck", "stuck")}{TYPE.format("hosts", "hosts").replace("event.avsc", "host.avsc")}producer = "host"
lease = "{LEASE_S}s"
[sources.events]
kind = "kafka"
cluster = "main"
topics = ["live", "stuck", "hosts"]
[stages.parse]
kind = "tsv"
from = ["events"]
type_from = {{ column = 0 }}
time = "epoch_ms"
[stages.dedup]
kind = "dedup"
from = ["parse"]
[sinks.warehouse]
kind = "avro_files"
from = ["dedup"]
"""
BOUNDS_S = [0.25, 0.5, 1, 2, 3, 5, 7, 10, 20, 40, 80]


class Sender:
    def __init__(self, broker, dice):
        self.producer, self.dice, self.number = Producer({"bootstrap.servers": broker.address, "linger.ms": 5}), dice, 0

    def send(self, event_type, topic, partition, more=""):
        self.number += 1
        line = f"{event_type}\tid{self.number}\t{time.time_ns() // 1_000_000}{more}"
        self.producer.produce(topic, line, partition=partition)
        self.producer.poll(0)

    def live(self, seconds):
        """Sends as long as that."""
        end, sparse = time.monotonic() + seconds, time.monotonic()
        dies = time.monotonic() + 120 + (57 - (time.time() + 120)) % 60
        while time.monotonic() < end:
            for partition in range(12):
                self.send("busy", "live", partition)
            self.send("stuck", "stuck", 1)
            for host in "ab" if time.monotonic() > dies else "abc":
                self.send("hosts", "hosts", 0, f"\t{host}")
            if time.monotonic() >= sparse:
                self.send("sparse", "live", self.dice.randrange(12))
                sparse += 20
            time.sleep(0.1)
        self.producer.flush()


def stick(broker, place, settings, sender):
    """Has partition 0 of `stuck` read, and then takes away what was not read yet."""
    for partition in (0, 1):
        sender.send("stuck", "stuck", partition)
    sender.producer.flush()
    run = place.start(settings=settings)
    ledgers = lambda: "".join(path.read_text(errors="replace") for path in place.dir.glob(".tidemill/matrix/ledger-*.log"))
    wait_until("both partitions in a cut", lambda: all(f'"stuck/{number}":{{"next":1' in ledgers() for number in (0, 1)))
    run.terminate()
    ended(run)
    for _ in range(2):
        sender.send("stuck", "stuck", 0)
    sender.producer.flush()
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.delete_records([TopicPartition("stuck", 0, 2)])[TopicPartition("stuck", 0, 2)].result(30)


def delays(place, before):
    """Seconds from the end and the allowed lateness of each published hour to its mark, by type and reason."""
    found = {}
    for mark in place.dir.glob("out/**/rev=0/_SUCCESS"):
        manifest = json.loads(mark.with_name("_manifest.json").read_text())
        end = time.mktime(time.strptime(manifest["hour"]["end"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
        if manifest["event_type"] != "dead_letter" and manifest["hour"]["start"] >= before:
            delay = mark.stat().st_ctime - end - LATENESS_S
            found.setdefault((manifest["event_type"], manifest["reason"]), []).append(delay)
    return found


def histogram(values):
    bars = []
    low = 0
    for high in BOUNDS_S:
        count = sum(low <= value < high for value in values)
        if count:
            bars.append(f"    {low:>5} to {high:<5} s  {count:>4}  {'#' * min(count, 60)}")
        low = high
    return "\n".join(bars)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.minutes} minutes", flush=True)
    broker = Broker()
    with Place() as place:
        broker.create("live", 12)
        broker.create("stuck", 2)
        broker.create("hosts", 1)
        (place.dir / "event.avsc").write_text(json.dumps(SCHEMA))
        (place.dir / "host.avsc").write_text(json.dumps(HOST_SCHEMA))
        place.write(TOPOLOGY)
        sender = Sender(broker, random.Random(arguments.seed))
        settings = [f"kafka.main.bootstrap_servers={broker.address}"]
        stick(broker, place, settings, sender)
        begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
        run = place.start(settings=settings)
        sender.live(arguments.minutes * 60)
        # The last minute closes although nothing comes.
        time.sleep(60 + LATENESS_S + HOLD_S + 15)
        run.terminate()
        ended(run)
        found = delays(place, begun)
    broker.remove()
    print("| type | reason | hours | p50 | p99 | max |\n| --- | --- | --- | --- | --- | --- |")
    for (event_type, reason), values in sorted(found.items()):
        told = [percentile(values, 0.5), percentile(values, 0.99), max(values)]
        print(f"| {event_type} | {reason} | {len(values)} | " + " | ".join(f"{value:.2f} s" for value in told) + " |")
    for (event_type, reason), values in sorted(found.items()):
        print(f"\n{event_type}, {reason}\n{histogram(values)}")


if __name__ == "__main__":
    main()
