#!/usr/bin/env python3
"""Measures what a build and the tests of a commit take, from a clean clone in an empty home.

    tests/build/measure.py COMMIT [--only PART,PART] [--results FILE]
    tests/build/measure.py --page docs/building.md BEFORE AFTER [AFTER ...]

The first form runs the two commands of the README and an edit in crates/runtime, and adds what it finds to the results
(target/tmp/build.json) under the commit's name. Whole processes are measured, children included: seconds of wall
clock and of CPU.
The second form writes the tables of two measured commits into the page, behind its mark.

Takes about a quarter of an hour a commit on two cores. Nothing else should run meanwhile.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MARK = "<!-- measured -->"
EDITED = "crates/runtime/src/backoff.rs"
PARTS = ["release", "test_build", "fast", "edit"]

# What was done about the crates that took longest.
NOTES = {
    "openssl-sys": "no longer built: the system has it",
    "tidemill (link)": "no link-time optimisation",
    "tidemill-actors": "one unit: two and more make an event dearer",
    "tidemill-runtime": "no link-time optimisation",
    "tidemill": "level 1: the command line",
    "tidemill-topology": "level 0: runs once, at the start",
    "rdkafka-sys": "nothing: C",
    "zstd-sys": "nothing: C, and a fifth of the time of an event",
    "arrow-select": "level 0: only Arrow's own reader calls it, for what ponds never hold",
    "arrow-cmp": "level 0: not used by what we use",
    "arrow-array": "nothing: columns of events",
    "rustls": "gone: one TLS library",
    "ring": "gone, with rustls",
    "regex-automata": "gone: log levels need no patterns",
    "num-bigint": "level 0: decimals of more than 38 digits",
    "clap_builder": "level 0: runs once",
}


class Clone:
    """A clone of a commit with a home of its own, or a tree that is there."""

    def __init__(self, commit, tree=None):
        self.dir, self.tree, self.environment = None, tree, dict(os.environ)
        if tree is not None:
            return
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="tidemill-build-"))
        self.tree = self.dir / "tidemill"
        subprocess.run(["git", "clone", "--quiet", ROOT, self.tree], check=True)
        subprocess.run(["git", "checkout", "--quiet", commit], cwd=self.tree, check=True)
        home = self.dir / "home"
        home.mkdir()
        rustup = os.environ.get("RUSTUP_HOME", pathlib.Path.home() / ".rustup")
        self.environment = os.environ | {
            "HOME": str(home),
            "CARGO_HOME": str(home / ".cargo"),
            "RUSTUP_HOME": str(rustup),
            # Maven asks the system for the home, not the environment.
            "MAVEN_OPTS": f"-Duser.home={home}",
        }

    def timed(self, command):
        """Runs a command to its end; seconds of wall clock and CPU, and what it printed."""
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, cwd=self.tree, env=self.environment, capture_output=True, text=True)
        after, wall_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - begin
        if done.returncode != 0:
            printed = done.stdout[-4_000:] + done.stderr[-4_000:]
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{printed}")
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1)}, done.stdout + done.stderr

    def crates(self):
        """Seconds of the last build by crate, of its build script and of the compiler together."""
        page = (self.tree / "target/cargo-timings/cargo-timing.html").read_text()
        units = json.loads(re.search(r"const UNIT_DATA = (\[.*?\]);\n", page, re.DOTALL)[1])
        seconds = {}
        for unit in units:
            name = unit["name"] + (" (link)" if '"bin"' in unit["target"] else "")
            seconds[name] = seconds.get(name, 0) + unit["duration"]
        return {name: round(took_s, 1) for name, took_s in seconds.items() if took_s >= 1}


def passed(text):
    return sum(int(count) for count in re.findall(r"test result: ok\. (\d+) passed", text))


def release(clone):
    took, _ = clone.timed(["cargo", "run", "--release", "--timings", "--", "run"])
    size = (clone.tree / "target/release/tidemill").stat().st_size
    return took | {"binary_mb": round(size / 1e6, 1), "crates": clone.crates()}


def test_build(clone):
    took, _ = clone.timed(["cargo", "test", "--workspace", "--no-run", "--timings"])
    return took | {"crates": clone.crates()}


def fast(clone):
    """The tests that need Rust and Python only; what they build and fetch is there already."""
    clone.timed(["cargo", "test-fast"])
    took, text = clone.timed(["cargo", "test-fast"])
    return took | {"passed": passed(text)}


def edit(clone):
    """From an edit of a function to the result of the unit tests: the median of three."""
    command = ["cargo", "test", "-p", "tidemill-runtime", "--lib", "--quiet"]
    clone.timed(command)
    took = []
    for number in range(3):
        with open(clone.tree / EDITED, "a", encoding="utf-8") as file:
            file.write(f"\n#[allow(dead_code)]\nfn edit_{number}() -> usize {{\n    {number}\n}}\n")
        took.append(clone.timed(command)[0])
    subprocess.run(["git", "checkout", "--quiet", EDITED], cwd=clone.tree, check=True)
    return sorted(took, key=lambda each: each["wall_s"])[1]


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    return f"{os.cpu_count()} cores ({model[1] if model else platform.machine()}), {memory} GiB"


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def measure(commit, parts, path, tree):
    name = git("rev-parse", "--short", commit)
    clone = Clone(git("rev-parse", commit), tree)
    try:
        for part in parts:
            if part == "fast" and not (clone.tree / ".cargo/config.toml").exists():
                continue
            took = globals()[part](clone)
            results = json.loads(path.read_text()) if path.exists() else {}
            rustc = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.strip()
            when = {"when": datetime.date.today().isoformat(), "machine": machine(), "rustc": rustc}
            results.setdefault(name, {})[part] = took | when
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(results, indent=1))
            print(f"{name} {part}: {took['wall_s']} s, {took['cpu_s']} s of CPU", flush=True)
    finally:
        if clone.dir is not None:
            shutil.rmtree(clone.dir)


def took(part):
    return "" if part is None else f"{part['wall_s'] / 60:.1f} min, {part['cpu_s'] / 60:.1f} min of CPU"


def seconds(part):
    return "" if part is None else f"{part['wall_s']:.0f} s, {part['cpu_s']:.0f} s of CPU"


def parts_of_ci(log):
    """The last lines of .ci/run, as rows of a table."""
    found = re.findall(r"^ *([0-9.]+) min  (.+)$", log.read_text(), re.MULTILINE)
    if not found or found[-1][1] != "in all":
        raise SystemExit(f"{log} does not end with the minutes of all parts: it failed")
    rows = ["", "Minutes of `.ci/run` in a clean clone:", "", "| part | minutes |", "| --- | --- |"]
    return rows + [f"| {name} | {minutes} |" for minutes, name in found]


def page(path, names, results, log):
    """Tables of the first commit beside the others. Of parts that several of these have, the last one's counts."""
    before = results[names[0]] | {"at": names[0]}
    after = {"at": names[-1]}
    for name in names[1:]:
        after |= {part: took | {"at": name} for part, took in results[name].items()}
    rows = [
        ("`cargo run --release -- run`, from nothing", took, "release"),
        ("`cargo test --workspace`: the build, behind that", took, "test_build"),
        ("`cargo test-fast`, once built", seconds, "fast"),
        ("an edit in `crates/runtime`, to the result of its unit tests", seconds, "edit"),
    ]
    lines = [f"| what | at {names[0]} | at {names[-1]} |", "| --- | --- | --- |"]
    lines += [f"| {title} | {show(before.get(part))} | {show(after.get(part))} |" for title, show, part in rows]
    sizes = [f"{each['release']['binary_mb']:.0f} MB" for each in (before, after)]
    lines += [f"| size of the binary | {sizes[0]} | {sizes[1]} |", ""]
    for each in (before, after):
        release = each["release"]
        lines.append(f"{each['at']}: {release['when']}, {release['machine']}, {release['rustc']}.")
    where = sorted(f"{part} at {took['at']}" for part, took in after.items() if part != "at")
    lines.append(f"Parts of the second column: {', '.join(where)}.")
    lines += ["", "Seconds of the release build by crate, 3 and more, with build scripts and waiting for a core:", ""]
    lines += [f"| crate | at {names[0]} | at {names[-1]} | what was done |", "| --- | --- | --- | --- |"]
    crates = [each["release"]["crates"] for each in (before, after)]
    largest = sorted(set(crates[0]) | set(crates[1]), key=lambda name: -max(crate.get(name, 0) for crate in crates))
    lines += [
        f"| `{name}` | " + " | ".join(f"{crate[name]:.1f}" if name in crate else "" for crate in crates)
        + f" | {NOTES.get(name, '')} |"
        for name in largest
        if max(crate.get(name, 0) for crate in crates) >= 3
    ]
    if log is not None:
        lines += parts_of_ci(log)
    text = path.read_text().split(MARK)[0]
    path.write_text(f"{text}{MARK}\n\n" + "\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="+", metavar="COMMIT")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "target/tmp/build.json")
    parser.add_argument("--tree", type=pathlib.Path, help="a checkout that is built, for parts behind the first two")
    parser.add_argument("--page", type=pathlib.Path)
    parser.add_argument("--ci", type=pathlib.Path, help="what .ci/run printed, for its table in the page")
    arguments = parser.parse_args()
    if arguments.page:
        page(arguments.page, arguments.commits, json.loads(arguments.results.read_text()), arguments.ci)
        return
    parts = arguments.only.split(",")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    for commit in arguments.commits:
        measure(commit, parts, arguments.results, arguments.tree)


if __name__ == "__main__":
    main()
