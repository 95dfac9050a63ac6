"""The same input again and again, with other settings and under `kill -9`: what is published has to be the same."""

import hashlib
import json
import subprocess

from kit import Place, killed, seeded
from rows import COUNTS, deduplicated, line

# What a manifest says of its run, and not of its hour.
OF_THE_RUN = ("cut", "sealed_at", "state_id", "letters")
# It covers these, too.
CHECKSUM = "checksum"


def repeats(scale, seed):
    """One shuffled file with copies, read to its end by runs that differ in all that must not matter."""
    dice = seeded(seed)
    runs, kills_most, events = (10, 20, 300_000) if scale == "full" else (3, 4, 60_000)
    kills, differ, first = 0, 0, None
    with Place() as place:
        place.generate(events, seed)
        generated = sorted((place.dir / "data").glob("events-*.tsv"))
        rows = [row for path in generated for row in path.read_bytes().splitlines(keepends=True)]
        rows += dice.sample(rows, len(rows) // 50)
        dice.shuffle(rows)
        (place.dir / "data/shuffled.tsv").write_bytes(b"".join(rows))
        for number in range(runs):
            source = 'kind = "file"\npaths = ["data/shuffled.tsv"]'
            topology = deduplicated(place, source) + COUNTS
            place.write(topology.replace("workers = 2", f"workers = {dice.randint(1, 4)}"))
            settings = (
                f"output.root=out-{number}",
                f"state.root=state-{number}",
                f"cut.interval={dice.choice(['20ms', '200ms', '1s', '3s'])}",
                f"runtime.replay={dice.choice(['2MiB', '8MiB', '96MiB'])}",
                f"runtime.state_memory={dice.choice(['64KiB', '1MiB', '16MiB', '512MiB'])}",
            )
            kills += run_to_the_end(place, settings, dice, kills_most)
            said = published(place.dir / f"out-{number}")
            first = first or said
            differ += said != first
        manifests = [manifest for path, manifest in first.items() if path.endswith("_manifest.json")]
        files = len(first) - len(manifests)
    of_the_run = ", ".join(OF_THE_RUN)
    note = f"{runs} runs: {files} data files equal byte for byte, {len(manifests)} manifests but for {of_the_run}"
    injected = "one file in random order, other cuts, memory and workers each time, kills at random moments"
    return [line(injected, kills, runs * len(rows), differ, 0, note=note)]


def run_to_the_end(place, settings, dice, kills_most):
    """How often it was killed on its way."""
    for kills in range(kills_most + 1):
        run = place.start("--until-end", settings=settings)
        try:
            code = run.wait(dice.uniform(0.05, 0.8) if kills < kills_most else 600)
        except subprocess.TimeoutExpired:
            killed(run)
            continue
        if code != 0:
            raise SystemExit(f"exit {code}: {place.log()[-2_000:]}")
        return kills
    raise SystemExit("the last run does not come to its end")


def published(root):
    """Checksums of all data files, and what manifests say of their hours, by path."""
    found = {}
    for path in root.rglob("*"):
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        name = str(path.relative_to(root))
        if path.suffix == ".avro":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "_manifest.json":
            told = json.loads(path.read_text())
            of_the_hour = {key: value for key, value in told.items() if key not in (*OF_THE_RUN, CHECKSUM)}
            found[name] = json.dumps(of_the_hour, sort_keys=True)
    return found
