"""What the rows of the matrix are made of: a place for state and output, a broker, processes that can be killed, and audits by id.

Nothing here shares code with Tidemill: files are read by fastavro, topics by confluent-kafka, and the truth is the input itself.
"""

import atexit
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter

import fastavro
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A copy, so that builds may go on meanwhile.
TIDEMILL = pathlib.Path(tempfile.mkdtemp(prefix="matrix-bin-")) / "tidemill"
shutil.copy(ROOT / "target" / "debug" / "tidemill", TIDEMILL)
atexit.register(shutil.rmtree, TIDEMILL.parent, ignore_errors=True)
JARS = ROOT / "target" / "tmp" / "kafka"
JAVA = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", f"{JARS}/*"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(what, holds, limit_s=120.0, pause_s=0.01):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(pause_s)
    raise SystemExit(f"waited {limit_s} s in vain for {what}")


class Broker:
    """A real Apache Kafka of one node."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="matrix-kafka-"))
        self.port, controller = free_port(), free_port()
        self.config = self.dir / "server.properties"
        self.config.write_text(
            "process.roles=broker,controller\nnode.id=1\n"
            f"controller.quorum.voters=1@127.0.0.1:{controller}\n"
            f"listeners=CLIENTS://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}\n"
            f"advertised.listeners=CLIENTS://127.0.0.1:{self.port}\n"
            "listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
            "controller.listener.names=CONTROLLER\ninter.broker.listener.name=CLIENTS\n"
            f"log.dirs={self.dir}/data\n"
            "offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n"
            "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n"
            "transaction.state.log.num.partitions=1\ngroup.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n"
        )
        format_ = ["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(self.config)]
        subprocess.run(JAVA + format_, check=True, capture_output=True)
        self.process = None
        self.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        log = self.dir / "log"
        with open(log, "w") as out:
            command = ["setpriv", "--pdeathsig", "KILL"] + JAVA + ["kafka.Kafka", str(self.config)]
            self.process = subprocess.Popen(command, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        wait_until("the broker", lambda: "Kafka Server started" in log.read_text(), pause_s=0.1)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def create(self, topic, partitions):
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])[topic].result(30)

    def limit(self, bytes_s):
        """Lets producers send no more than that in a second, each; None lets them send what they can."""
        change = ["--delete-config", "producer_byte_rate"] if bytes_s is None else ["--add-config", f"producer_byte_rate={bytes_s}"]
        command = ["kafka.admin.ConfigCommand", "--bootstrap-server", self.address, "--alter", "--entity-type", "clients", "--entity-default"]
        subprocess.run(JAVA + command + change, check=True, capture_output=True)

    def ids(self, topic):
        """Ids of all events that a reader of committed messages sees, each with how often."""
        config = {"bootstrap.servers": self.address, "group.id": "matrix", "enable.auto.commit": False}
        consumer = Consumer(config | {"isolation.level": "read_committed", "enable.partition.eof": True})
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        found, open_ = Counter(), set(partitions)
        while open_:
            for message in consumer.consume(10_000, 5):
                if message.error() is None:
                    found[json.loads(message.value())["event_id"]] += 1
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    open_.discard(message.partition())
                else:
                    raise SystemExit(str(message.error()))
        consumer.close()
        return found

    def remove(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


class Place:
    """A directory with a topology, its state and its output."""

    def __init__(self, keep=False):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="matrix-"))
        self.keep = keep

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None and not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)
        elif kind is not None:
            print(f"left behind: {self.dir}", flush=True)

    def generate(self, events, seed, broker=None, topic=None, partitions=3):
        """Makes the input; ids of its events, each once, are the truth."""
        command = [TIDEMILL, "generate", "--events", str(events), "--seed", str(seed), "--out", "data"]
        subprocess.run(command, cwd=self.dir, check=True, capture_output=True)
        if broker is not None:
            broker.create(topic, partitions)
            if self.send(broker, topic, events, seed, partitions=partitions).wait() != 0:
                raise SystemExit(self.log()[-2_000:])
        ids = set()
        for path in sorted((self.dir / "data").glob("events-*.tsv")):
            with open(path, encoding="utf-8") as lines:
                ids.update(line.split("\t", 2)[1] for line in lines)
        return ids

    def send(self, broker, topic, events, seed, rate=0, partitions=3):
        """Starts to send the same events to a topic, so many a second."""
        command = [TIDEMILL, "generate", "--events", str(events), "--seed", str(seed), "--out", "sent", "--rate", str(rate)]
        command += ["--kafka", "main", "--topic", topic, "--partitions", str(partitions)]
        command += ["--set", f"kafka.main.bootstrap_servers={broker.address}"]
        with open(self.dir / "log", "ab") as log:
            return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def why_slow(self, settings):
        """What `why-slow` says of the running topology, in a line."""
        command = [TIDEMILL, "why-slow", "matrix"]
        for setting in settings:
            command += ["--set", setting]
        return subprocess.run(command, cwd=self.dir, check=True, capture_output=True, text=True).stdout.splitlines()[0]

    @staticmethod
    def resident_mib(run):
        status = pathlib.Path(f"/proc/{run.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024

    def types(self):
        names = json.loads((self.dir / "data/truth.json").read_text())["types"]
        table = '[types.{0}]\nschema = "data/listening.avsc"\ntime = "event_time"\nid = ["event_id"]\n'
        return "".join(table.format(name) for name in names)

    def write(self, text):
        (self.dir / "matrix.toml").write_text(text)

    def command(self, *more, settings=()):
        command = [TIDEMILL, "run", "matrix.toml", "--progress", "none", *more]
        for setting in ("log.level=warn", "output.root=out", *settings):
            command += ["--set", setting]
        return command

    def start(self, *more, settings=(), failpoint=None, admin=None):
        environment = {name: value for name, value in os.environ.items() if name != "TIDEMILL_FAILPOINT"}
        if failpoint:
            environment["TIDEMILL_FAILPOINT"] = failpoint
        settings = (*settings, f"admin.listen={'' if admin is None else f'127.0.0.1:{admin}'}")
        log = open(self.dir / "log", "ab")
        # It dies with the matrix.
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *self.command(*more, settings=settings)], cwd=self.dir, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

    def stop_and_finish(self, run, settings):
        """Stops a run by a signal; another one reads to the end. Both have to end well."""
        run.send_signal(signal.SIGTERM)
        for process in (run, None):
            code = ended(process or self.start("--until-end", settings=settings))
            if code != 0:
                raise SystemExit(f"exit {code}: {self.log()[-2_000:]}")

    def log(self):
        return (self.dir / "log").read_text(errors="replace")

    def file_ids(self, sink="warehouse"):
        """Ids of all events in the published files of a sink, each with how often; `_SUCCESS` must stand beside them."""
        found = Counter()
        for manifest in self.dir.glob("out/**/_manifest.json"):
            told = json.loads(manifest.read_text())
            if told["sink"] != sink:
                continue
            if not (manifest.parent / "_SUCCESS").exists():
                raise SystemExit(f"{manifest.parent} has no _SUCCESS")
            for file in told["files"]:
                with open(manifest.parent / file["name"], "rb") as avro:
                    found.update(row["event_id"] for row in fastavro.reader(avro))
        return found


def audit(truth, found):
    """How many events are lost, and how many are doubled or made up."""
    lost = len(truth - found.keys())
    doubled = sum(count - 1 for count in found.values()) + len(found.keys() - truth)
    return lost, doubled


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return answer.read().decode()
    except OSError:
        return None


def metric(port, name, **labels):
    """Sum of the series of a metric with these labels."""
    total = 0.0
    for line in (get(port, "/metrics") or "").splitlines():
        wanted = all(f'{key}="{value}"' in line for key, value in labels.items())
        if line.startswith(name) and line[len(name) : len(name) + 1] in ("{", " ") and wanted:
            total += float(line.rsplit(" ", 1)[1])
    return total


def ended(process, limit_s=600):
    return process.wait(limit_s)


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def seeded(seed):
    return random.Random(seed)
