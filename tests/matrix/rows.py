"""The rows of the matrix: what is done to Tidemill, and what has to be true afterwards.

Each row returns a list of lines for the table: what was injected, how often, over how many events, and what was lost or doubled.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import threading
import time

from confluent_kafka import Consumer

from kit import ROOT, TIDEMILL, Broker, Place, audit, ended, free_port, get, killed, metric, percentile, seeded, wait_until

# Steps of a commit, of a start, of a pond and of a worker, as `failpoint` calls in the runtime name them.
POINTS = sorted(
    {
        name
        for path in (ROOT / "crates/runtime/src").rglob("*.rs")
        if path.name != "failpoint.rs"
        for name in re.findall(r'failpoint::(?:hit|at)\("([a-z-]+)"\)', path.read_text())
    }
)


def line(injected, count, events, lost, doubled, stall="", recovery="", note=""):
    return {
        "injected": injected,
        "count": count,
        "events": events,
        "lost": lost,
        "doubled": doubled,
        "stall": stall,
        "recovery": recovery,
        "note": note,
    }


def deduplicated(place, source):
    """The beginning of every topology here: events of a source, parsed and deduplicated, to hourly files."""
    return f"""
[topology]
name = "matrix"
{place.types()}
[sources.events]
{source}
[stages.parse]
kind = "tsv"
from = ["events"]
workers = 2
type_from = {{ column = 0 }}
time = "epoch_ms"
[stages.dedup]
kind = "dedup"
from = ["parse"]
[sinks.warehouse]
kind = "avro_files"
from = ["dedup"]
codec = "snappy"
"""


def to_kafka(name, cluster, topic):
    """A sink that sends in transactions."""
    return f"""
[sinks.{name}]
kind = "kafka"
from = ["dedup"]
cluster = "{cluster}"
topic = "{topic}"
delivery = "exactly_once"
"""


COUNTS = """
[stages.counts]
kind = "hourly"
from = ["dedup"]
group_by = ["country"]
measures = { events = "count()" }
[sinks.count_files]
kind = "avro_files"
from = ["counts"]
"""

AGAIN = """
[sinks.again]
kind = "avro_files"
from = ["dedup"]
codec = "snappy"
path = "again/{event_type}/{year}/{month}/{day}/{hour}"
pond = {}
"""

FILES = 'kind = "file"\npaths = ["data/events-*.tsv"]'


def from_kafka(place, broker, topic, out, replay="256KiB"):
    """Events of a topic, deduplicated, to hourly files, to counts, and once more to a topic in transactions; settings for it."""
    source = f'kind = "kafka"\ncluster = "main"\ntopics = ["{topic}"]\nidle_timeout = "1s"'
    # A small pond has segments to remove soon.
    small = 'pond = { max_bytes = "8MiB" }\n'
    place.write(deduplicated(place, source) + COUNTS + to_kafka("out", "main", out) + small)
    # Slow enough to be in the middle whenever something happens.
    return (f"kafka.main.bootstrap_servers={broker.address}", "cut.interval=50ms", f"runtime.replay={replay}")


def both(place, broker, truth, out):
    """Lost and doubled in files and in the topic together."""
    files, topic = audit(truth, place.file_ids()), audit(truth, broker.ids(out))
    return files[0] + topic[0], files[1] + topic[1]


def kills(scale, seed):
    """Row 1: `kill -9` at every fail point, and at points of progress, from a real Kafka."""
    dice = seeded(seed)
    rounds, points = (20, 500) if scale == "full" else (1, 8)
    events = 400_000 if scale == "full" else 150_000
    broker = Broker()
    plan = [(name, None) for name in POINTS for _ in range(rounds)] + [(None, dice.uniform(0.0, 1.2)) for _ in range(points)]
    dice.shuffle(plan)
    hits, epochs, lost, doubled, total, ready = dict.fromkeys([*POINTS, "progress"], 0), 0, 0, 0, 0, []

    def again(point):
        """A point that was not reached has its turn later. In short, it was tried."""
        if scale == "full" and point is not None:
            plan.insert(dice.randrange(len(plan) + 1), (point, None))

    while plan:
        epochs += 1
        # Kills where a point was not reached count for those that were to come anyhow.
        of_progress = [kill for kill in plan if kill[0] is None]
        for kill in of_progress[: max(0, hits["progress"] + len(of_progress) - points)]:
            plan.remove(kill)
        print(f"  {len(plan)} kills to come; so far {sum(hits.values())}: {total} events, {lost} lost, {doubled} doubled", flush=True)
        with Place() as place:
            topic, out = f"in-{epochs}", f"out-{epochs}"
            truth = place.generate(events, seed + epochs, broker, topic)
            broker.create(out, 2)
            settings = from_kafka(place, broker, topic, out, replay="64KiB")
            port = free_port()
            is_over = False
            while plan and not is_over:
                point, after_s = plan.pop()
                # Points of a start come once; others are hit somewhere on the way.
                number = dice.randint(1, 12) if point in ("item-leased", "item-done", "item-sent", "log-appended") else dice.randint(1, 2)
                failpoint = None if point is None else f"{point}:{number}"
                begin = time.monotonic()
                run = place.start("--until-end", settings=settings, failpoint=failpoint, admin=port)
                if point is None:
                    wait_until("ready", lambda: get(port, "/ready") is not None or run.poll() is not None, pause_s=0.005)
                    if run.poll() is None:
                        ready.append(time.monotonic() - begin)
                    time.sleep(after_s)
                    if run.poll() is None:
                        killed(run)
                        hits["progress"] += 1
                        continue
                # Where the point is not reached soon, the kill is one of progress, and the point's turn comes again.
                try:
                    code = run.wait(dice.uniform(0.5, 2.0))
                except subprocess.TimeoutExpired:
                    killed(run)
                    hits["progress"] += 1
                    again(point)
                    continue
                if code == -signal.SIGKILL:
                    hits[point] += 1
                elif code == 0:
                    is_over = True
                    again(point)
                else:
                    raise SystemExit(f"exit {code}: {place.log()[-2_000:]}")
            end = place.start("--until-end", settings=settings)
            if ended(end) != 0:
                raise SystemExit(place.log()[-2_000:])
            found = both(place, broker, truth, out)
            lost, doubled, total = lost + found[0], doubled + found[1], total + 2 * len(truth)
    broker.remove()
    fewest = min(hits[name] for name in POINTS)
    recovery = f"{percentile(ready, 0.5) * 1000:.0f} / {percentile(ready, 0.99) * 1000:.0f} ms"
    at_points = sum(hits[name] for name in POINTS)
    return [
        line(f"`kill -9` at each of {len(POINTS)} fail points, {fewest} times or more", at_points, total, lost, doubled, note=f"{epochs} runs to the end"),
        line("`kill -9` at seeded points of progress", hits["progress"], "in these", lost, doubled, recovery=f"{recovery} to ready"),
    ]


def all_sent(port, truth):
    """Waits until the sink `out` has sent every event."""
    done = lambda: metric(port, "tidemill_stage_sent_total", stage="out") >= len(truth)
    wait_until("all events", done, limit_s=900, pause_s=0.2)


def broker_trouble(scale, seed):
    """Row 3: the broker dies, others storm the group, our process is stopped past every timeout."""
    times, storm_s, stop_s = (20, 300, 75) if scale == "full" else (2, 10, 12)
    events = 2_000_000 if scale == "full" else 200_000
    dice = seeded(seed)
    lines = []
    broker = Broker()
    with Place() as place:
        truth = place.generate(events, seed, broker, "in")
        broker.create("out", 2)
        settings = from_kafka(place, broker, "in", "out")
        port, back = free_port(), []
        run = place.start(settings=settings, admin=port)
        wait_until("the first events", lambda: metric(port, "tidemill_stage_sent_total", stage="out") > 0)
        for _ in range(times):
            time.sleep(dice.uniform(0.1, 1.0))
            broker.kill()
            time.sleep(dice.uniform(0.1, 1.0))
            broker.start()
            before, begin = metric(port, "tidemill_cuts_total", region="out"), time.monotonic()
            wait_until("a cut", lambda: metric(port, "tidemill_cuts_total", region="out") > before)
            back.append(time.monotonic() - begin)
        all_sent(port, truth)
        place.stop_and_finish(run, settings)
        lost, doubled = both(place, broker, truth, "out")
        recovery = f"{percentile(back, 0.5):.1f} / {percentile(back, 0.99):.1f} s to the next cut"
        lines.append(line("broker killed (`kill -9`) and started again, also in the middle of our transactions", times, 2 * len(truth), lost, doubled, recovery=recovery))
    with Place() as place:
        truth = place.generate(events, seed + 1, broker, "in2")
        broker.create("out2", 2)
        settings = from_kafka(place, broker, "in2", "out2")
        over = threading.Event()
        joined = []

        def storm():
            while not over.is_set():
                config = {"bootstrap.servers": broker.address, "group.id": "tidemill-matrix", "session.timeout.ms": 6000}
                member = Consumer(config)
                member.subscribe(["in2"])
                member.poll(0.5)
                joined.append(1)
                over.wait(5)
                member.close()

        members = [threading.Thread(target=storm) for _ in range(2)]
        begin = time.monotonic()
        run = place.start(settings=settings, admin=(port := free_port()))
        [member.start() for member in members]
        all_sent(port, truth)
        time.sleep(max(0.0, storm_s - (time.monotonic() - begin)))
        over.set()
        [member.join() for member in members]
        place.stop_and_finish(run, settings)
        lost, doubled = both(place, broker, truth, "out2")
        lines.append(line(f"foreign members join and leave the consumer group every 5 s, for {storm_s} s", len(joined), 2 * len(truth), lost, doubled))
    with Place() as place:
        truth = place.generate(events, seed + 2, broker, "in3")
        broker.create("out3", 2)
        settings = from_kafka(place, broker, "in3", "out3")
        run = place.start(settings=settings, admin=(port := free_port()))
        wait_until("the first events", lambda: metric(port, "tidemill_stage_sent_total", stage="out") > 0)
        run.send_signal(signal.SIGSTOP)
        time.sleep(stop_s)
        run.send_signal(signal.SIGCONT)
        begin = time.monotonic()
        before = metric(port, "tidemill_cuts_total", region="out")
        wait_until("a cut", lambda: metric(port, "tidemill_cuts_total", region="out") > before)
        took = time.monotonic() - begin
        all_sent(port, truth)
        place.stop_and_finish(run, settings)
        lost, doubled = both(place, broker, truth, "out3")
        lines.append(line(f"our process stopped (SIGSTOP) for {stop_s} s and continued", 1, 2 * len(truth), lost, doubled, recovery=f"{took:.1f} s to the next cut"))
    broker.remove()
    return lines


def dead_sink(scale, seed):
    """Row 4: one of four sinks is dead; the others must not notice."""
    pairs, events = (7, 500_000) if scale == "full" else (1, 200_000)
    broker = Broker()
    rates = {"alive": [], "dead": []}
    stalls, total, lost, doubled = [], 0, 0, 0
    with Place() as data:
        truth = data.generate(events, seed)
        for number in range(pairs):
            for kind in ("alive", "dead") if number % 2 == 0 else ("dead", "alive"):
                with Place() as place:
                    shutil.copytree(data.dir / "data", place.dir / "data")
                    topics = [f"{kind}-{number}-{sink}" for sink in ("a", "b")]
                    [broker.create(topic, 2) for topic in topics]
                    closed = free_port()
                    place.write(four_sinks(place, topics, "main" if kind == "alive" else "down"))
                    settings = (
                        f"kafka.main.bootstrap_servers={broker.address}",
                        f"kafka.down.bootstrap_servers=127.0.0.1:{closed}",
                        "cut.interval=200ms",
                    )
                    port = free_port()
                    begin = time.monotonic()
                    run = place.start(settings=settings, admin=port)
                    sinks = ("warehouse", "again", "a")
                    cuts, stall, moved = 0, 0.0, time.monotonic()
                    while not all(metric(port, "tidemill_stage_received_total", stage=sink) >= len(truth) for sink in sinks):
                        now, seen = time.monotonic(), metric(port, "tidemill_cuts_total", region="main")
                        if seen != cuts:
                            cuts, moved = seen, now
                        stall = max(stall, now - moved)
                        time.sleep(0.02)
                    rates[kind].append(len(truth) / (time.monotonic() - begin))
                    if kind == "dead":
                        stalls.append(stall)
                    # It heals: what waited in its pond comes, once.
                    healed = (settings[0], f"kafka.down.bootstrap_servers={broker.address}", *settings[2:])
                    place.stop_and_finish(run, healed)
                    for found in (place.file_ids("warehouse"), place.file_ids("again"), *(broker.ids(topic) for topic in topics)):
                        missing, twice = audit(truth, found)
                        lost, doubled, total = lost + missing, doubled + twice, total + len(truth)
    broker.remove()
    ratios = [dead / alive for dead, alive in zip(rates["dead"], rates["alive"])]
    note = f"throughput of the others against a run without the fault: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {pairs} pairs in turns)"
    return [line("one of four sinks dead from the start, then healed", pairs, total, lost, doubled, stall=f"{max(stalls):.2f} s between two cuts", note=note)]


def overload(scale, seed):
    """Row 8: ten times as much as a sink takes, then less again; memory, lag, and what `why-slow` says meanwhile."""
    rate, seconds = (10_000, 600) if scale == "full" else (10_000, 20)
    # Messages have some 250 bytes.
    sink_bytes_s = rate * 250 // 10
    source, sink = Broker(), Broker()
    with Place() as place:
        truth = place.generate(rate * seconds, seed)
        source.create("in", 3)
        sink.create("out", 2)
        sink.limit(sink_bytes_s)
        reads = 'kind = "kafka"\ncluster = "main"\ntopics = ["in"]\nidle_timeout = "1s"\nprefetch = "16MiB"'
        place.write(deduplicated(place, reads) + to_kafka("out", "slow", "out") + 'pond = { max_bytes = "64MiB" }\n')
        settings = (
            f"kafka.main.bootstrap_servers={source.address}",
            f"kafka.slow.bootstrap_servers={sink.address}",
            "runtime.queue=4MiB",
            f"runtime.replay={REPLAY_MIB}MiB",
        )
        run = place.start(settings=settings, admin=(port := free_port()))
        wait_until("ready", lambda: get(port, "/ready") is not None)
        begin = time.monotonic()
        producer = place.send(source, "in", rate * seconds, seed, rate=rate)
        resident_mib, named, asked = [], None, False
        while producer.poll() is None:
            resident_mib.append(place.resident_mib(run))
            if not asked and time.monotonic() - begin > seconds * 0.8:
                asked, named = True, place.why_slow(settings)
            time.sleep(0.5)
        behind = len(truth) - metric(port, "tidemill_stage_sent_total", stage="out")
        sink.limit(None)
        begin = time.monotonic()
        while metric(port, "tidemill_stage_sent_total", stage="out") < len(truth):
            resident_mib.append(place.resident_mib(run))
            if time.monotonic() - begin > 3_600:
                raise SystemExit(f"it does not catch up: {place.log()[-2_000:]}")
            time.sleep(0.5)
        drained_s = time.monotonic() - begin
        place.stop_and_finish(run, settings)
        files, topic = audit(truth, place.file_ids()), audit(truth, sink.ids("out"))
        bound = bound_mib(regions=3, ids=len(truth))
        if max(resident_mib) > bound or "`out`" not in named:
            raise SystemExit(f"{max(resident_mib):.0f} MiB of {bound:.0f}; why-slow said {named!r}")
    source.remove()
    sink.remove()
    note = f"peak {max(resident_mib):.0f} MiB, stated bound {bound:.0f} MiB; {behind:.0f} events behind at the end of the overload; `why-slow`: {named}"
    injected = f"a sink gets ten times what it takes for {seconds} s, then its limit is lifted"
    return [line(injected, 1, 2 * len(truth), files[0] + topic[0], files[1] + topic[1], recovery=f"{drained_s:.0f} s until all was delivered", note=note)]


REPLAY_MIB = 16


def bound_mib(regions, ids):
    """Memory, as docs/operating.md adds it up: one source `kafka`, one sink `kafka`; the hours and types of the generator."""
    prefetch_mib, in_flight_mib, block_mib = 16, 32, 0.125
    open_hours = 21 * 3
    return 128 + regions * 3 * REPLAY_MIB + 2 * prefetch_mib + in_flight_mib + (open_hours + 2 * os.cpu_count()) * block_mib + ids * 32 / 2**20


def four_sinks(place, topics, cluster):
    return deduplicated(place, FILES) + AGAIN + to_kafka("a", "main", topics[0]) + to_kafka("b", cluster, topics[1])


def soak(scale, seed):
    """Row 9: mixed faults for an hour, one after the other, while events come all the time."""
    rate, seconds = (2_500, 3_600) if scale == "full" else (2_500, 60)
    dice = seeded(seed)
    source, other = Broker(), Broker()
    with Place() as place:
        events = rate * seconds
        truth = place.generate(events, seed)
        source.create("in", 3)
        source.create("out", 2)
        other.create("beside", 2)
        reads = 'kind = "kafka"\ncluster = "main"\ntopics = ["in"]\nidle_timeout = "5s"'
        place.write(deduplicated(place, reads) + COUNTS + AGAIN + to_kafka("out", "main", "out") + to_kafka("beside", "other", "beside"))
        settings = (
            f"kafka.main.bootstrap_servers={source.address}",
            f"kafka.other.bootstrap_servers={other.address}",
            "cut.interval=200ms",
        )
        port = free_port()
        run = place.start(settings=settings, admin=port)
        cuts = lambda region="main": metric(port, "tidemill_cuts_total", region=region)
        producer = place.send(source, "in", events, seed, rate=rate)
        wait_until("a cut", cuts)
        end = time.monotonic() + seconds
        done, back, stall = dict.fromkeys(FAULTS, 0), [], 0.0
        while time.monotonic() < end:
            time.sleep(dice.uniform(1, 5))
            if run.poll() is not None:
                raise SystemExit(f"it ended by itself with {run.returncode}: {place.log()[-2_000:]}")
            fault = dice.choice(FAULTS)
            done[fault] += 1
            print(f"  {end - time.monotonic():.0f} s left: {fault}", flush=True)
            if fault == "kill":
                killed(run)
                run = place.start(settings=settings, admin=port)
            elif fault == "kill at a fail point":
                killed(run)
                point = f"{dice.choice(POINTS)}:{dice.randint(1, 20)}"
                run = place.start(settings=settings, admin=port, failpoint=point)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(dice.uniform(1, 5))
                killed(run)
                run = place.start(settings=settings, admin=port)
            elif fault == "take over":
                run.send_signal(signal.SIGSTOP)
                old, run = run, place.start("--take-over", settings=settings, admin=port)
                old.wait(60)
            elif fault == "stop and continue":
                run.send_signal(signal.SIGSTOP)
                time.sleep(dice.uniform(0.5, 15))
                run.send_signal(signal.SIGCONT)
            elif fault == "end by a signal":
                run.send_signal(signal.SIGTERM)
                if ended(run) != 0:
                    raise SystemExit(place.log()[-2_000:])
                run = place.start(settings=settings, admin=port)
            elif fault == "broker":
                source.kill()
                time.sleep(dice.uniform(0.1, 5))
                source.start()
            elif fault == "broker of one sink":
                other.kill()
                stall = max(stall, longest_stall(cuts, dice.uniform(2, 30)))
                other.start()
            begin = time.monotonic()
            before = cuts()
            # Without events there is nothing to cut.
            wait_until("a cut", lambda: producer.poll() is not None or cuts() not in (0, before), limit_s=300)
            if producer.poll() is None:
                back.append(time.monotonic() - begin)
        if producer.wait(600) != 0:
            raise SystemExit(place.log()[-2_000:])
        wait_until("all events", lambda: metric(port, "tidemill_stage_received_total", stage="warehouse") > 0 and lag(port) == 0, limit_s=900, pause_s=0.5)
        place.stop_and_finish(run, settings)
        lost, doubled = 0, 0
        for found in (place.file_ids("warehouse"), place.file_ids("again"), source.ids("out"), other.ids("beside")):
            missing, twice = audit(truth, found)
            lost, doubled = lost + missing, doubled + twice
    source.remove()
    other.remove()
    recovery = f"{percentile(back, 0.5):.1f} / {percentile(back, 0.99):.1f} s to the next cut"
    injected = f"for {seconds} s, one after the other: " + ", ".join(f"{fault} {count}" for fault, count in done.items())
    return [line(injected, sum(done.values()), 4 * len(truth), lost, doubled, stall=f"{stall:.1f} s between two cuts, while a sink was dead", recovery=recovery)]


FAULTS = ["kill", "kill at a fail point", "take over", "stop and continue", "end by a signal", "broker", "broker of one sink"]


def lag(port):
    """Messages that were not handed on."""
    return metric(port, "tidemill_partition_lag_events", source="events")


def longest_stall(cuts, for_s):
    """The longest time without a cut, while the test looks on."""
    end, seen, moved, longest = time.monotonic() + for_s, cuts(), time.monotonic(), 0.0
    while (now := time.monotonic()) < end:
        if (count := cuts()) != seen:
            seen, moved = count, now
        longest = max(longest, now - moved)
        time.sleep(0.02)
    return longest


def damage(scale, seed):
    """Row 5, the disk itself: ledgers, segments of ponds and of state that are cut short or have a flipped bit."""
    dice = seeded(seed)
    rounds = 20 if scale == "full" else 2
    lines = []
    with Place() as first:
        truth = first.generate(60_000, seed)
        first.write(deduplicated(first, FILES) + AGAIN)
        settings = ("cut.interval=20ms", "state.root=state")
        run = first.start(settings=settings, admin=(port := free_port()))
        wait_until("all events", lambda: metric(port, "tidemill_stage_received_total", stage="again") >= len(truth))
        run.send_signal(signal.SIGTERM)
        assert ended(run) == 0, first.log()[-2_000:]
        kinds = {"ledger": "ledger-*.log", "state": "pieces-*.log", "pond segment": "segment-*.staged"}
        for what, pattern in kinds.items():
            for how in ("cut short", "one bit flipped"):
                refused = went_on = wrong = 0
                for _ in range(rounds):
                    outcome = damaged(first, dice, pattern, how, settings, truth)
                    refused += outcome == "refused"
                    went_on += outcome == "right"
                    wrong += outcome == "wrong"
                note = f"{refused} refused with what to do, {went_on} went on and were right, {wrong} wrong"
                lines.append(line(f"{what}: {how}", rounds, len(truth), wrong, 0, note=note))
    return lines


def damaged(first, dice, pattern, how, settings, truth):
    with Place() as place:
        shutil.copytree(first.dir, place.dir, dirs_exist_ok=True)
        (place.dir / "log").unlink()
        path = dice.choice(sorted(path for path in (place.dir / "state").rglob(pathlib.Path(pattern).name) if path.stat().st_size))
        content = bytearray(path.read_bytes())
        at = dice.randrange(len(content))
        if how == "cut short":
            del content[at:]
        else:
            content[at] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        code = ended(place.start("--until-end", settings=settings))
        said = place.log()
        if code != 0:
            return "refused" if str(path.relative_to(place.dir / "state")) in said or path.name in said or "ledger" in said else "wrong"
        both_right = all(audit(truth, place.file_ids(sink)) == (0, 0) for sink in ("warehouse", "again"))
        return "right" if both_right else "wrong"


def of_tests(title, names, scale, count):
    """Rows that are tests: they say nothing but that they hold."""
    groups = ["--test", "promises", "--test", "proof", "--test", "system"]
    command = ["cargo", "test", "--workspace", "--locked", *groups, "--", *names, "--test-threads", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    passed = sum(int(count) for count in re.findall(r"(\d+) passed; 0 failed", done.stdout))
    if done.returncode != 0 or passed == 0:
        raise SystemExit((done.stdout + done.stderr)[-4_000:])
    return [line(title, f"{passed} tests", count, 0, 0)]


def tests_built(*options):
    """A copy of the integration tests' program beside it, so that builds may go on meanwhile."""
    command = ["cargo", "test", "--workspace", "--locked", "--test", "proof", "--no-run", "--message-format", "json", *options]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(message) for message in said.splitlines()]
    built = next(message["executable"] for message in messages if message.get("executable") and message["target"]["name"] == "proof")
    return shutil.copy(built, pathlib.Path(built).with_name(f"matrix-proof{''.join(options)}"))


def in_process(scale, seed):
    """Row 2: a program of its own, because it plants failures in stages. A thread that hangs stays, so a process has only so many seeds."""
    batches, seeds, rounds = (10, 100, 100) if scale == "full" else (1, 20, 0)
    out = ROOT / "target" / "tmp" / "matrix-workers.json"
    program = tests_built()
    runs = [(program, {"SEEDS": seeds, "SEED": seed + batch * seeds}) for batch in range(batches)]
    if rounds:
        # How fast it is, is asked of what operators run.
        runs.append((tests_built("--release"), {"SEEDS": 0, "IDS": rounds}))
    found = {}
    for program, told in runs:
        environment = os.environ | {f"TIDEMILL_MATRIX_{name}": str(value) for name, value in (told | {"OUT": out}).items()}
        # The first backtrace of a process takes longer than what is measured.
        environment["RUST_BACKTRACE"] = "0"
        done = subprocess.run([program, "workers::a_worker"], cwd=ROOT, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            raise SystemExit(done.stdout[-4_000:])
        for row in json.loads(out.read_text()):
            sum_ = found.setdefault(row["injected"], row | {"count": 0, "events": 0, "recovery_ms": []})
            sum_["count"] += row["count"]
            sum_["events"] += row["events"]
            sum_["recovery_ms"] += row["recovery_ms"]
    lines = []
    for row in found.values():
        recovery = f"{percentile(row['recovery_ms'], 0.5):.1f} / {percentile(row['recovery_ms'], 0.99):.1f} ms"
        lines.append(line(row["injected"], row["count"], row["events"], 0, 0, recovery=recovery, note=row["note"]))
    return lines


def simulated(scale, seed):
    """Row 5 and power loss: the simulation."""
    seeds = 20_000 if scale == "full" else 300
    command = [ROOT / "target" / "debug" / "tidemill-simulation", "--seeds", str(seeds), "--from", str(seed)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    told = re.search(r"(\d+) seeds from \d+, (\d+) events, (?:\d+ revisions, )?(\d+) deaths of processes, (\d+) power cuts in (\d+) s: (\d+) seeds with", said)
    seeds, events, deaths, cuts, took_s, wrong = map(int, told.groups())
    # Each is one command to replay.
    print(*re.findall(r"^seed \d+: .*", said, re.MULTILINE), sep="\n", flush=True)
    note = f"{deaths} deaths of processes, {cuts} power cuts, full disks, failing syncs, panics, dead sinks; {seeds * 60 // max(took_s, 1)} seeds a minute"
    return [line("simulated machines, each with a topology of up to five regions", f"{seeds} seeds", events, wrong, 0, note=note)]
