#!/usr/bin/env python3
"""Plants the bugs of this folder, one at a time, and says how soon the simulation finds each.

    crates/simulation/bugs/plant.py [--seeds N] [--check] [NAME ...]

Works on a copy of the committed tree below target/planted, so that the first run builds everything anew. `--check` only says whether each patch still
applies. Exit code 1 when a bug is not found, 2 when a patch does not apply.
"""

import argparse
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TREE = ROOT / "target" / "planted"


def run(*command, cwd=ROOT, check=True):
    return subprocess.run(command, cwd=cwd, check=check, capture_output=True, text=True)


def plant(patch, seeds):
    """How a bug was found: the seed, how many seeds it took, and what was wrong. None when it was not."""
    run("git", "checkout", "-q", "--", ".", cwd=TREE)
    run("git", "apply", str(patch), cwd=TREE)
    built = run("cargo", "build", "-q", "--locked", "--workspace", "--bin", "tidemill-simulation", cwd=TREE, check=False)
    if built.returncode != 0:
        sys.exit(f"{patch.name}: it does not build\n{built.stderr}")
    command = [str(TREE / "target/debug/tidemill-simulation"), "--seeds", str(seeds), "--until-violation"]
    said = run(*command, cwd=TREE, check=False).stdout
    found = re.search(r"^seed (\d+): \d+ violations, first: (.*)$", said, re.MULTILINE)
    tried = re.search(r"^(\d+) seeds from", said, re.MULTILINE)
    return (found.group(1), tried.group(1), found.group(2)) if found else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, default=20_000)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    patches = [patch for patch in sorted(HERE.glob("*.patch")) if not arguments.names or patch.stem in arguments.names]
    if arguments.check:
        for patch in patches:
            applied = run("git", "apply", "--check", str(patch), check=False)
            if applied.returncode != 0:
                print(f"{patch.name} does not apply any more:\n{applied.stderr}", file=sys.stderr)
                return 2
        print(f"{len(patches)} patches apply")
        return 0
    if not TREE.exists():
        run("git", "worktree", "add", "--detach", str(TREE), "HEAD")
    run("git", "checkout", "-q", "--force", "--detach", run("git", "rev-parse", "HEAD").stdout.strip(), cwd=TREE)
    print("| bug | found by seed | after seeds | as |\n| --- | --- | --- | --- |", flush=True)
    missed = 0
    for patch in patches:
        found = plant(patch, arguments.seeds)
        missed += found is None
        seed, tried, what = found or ("not found", arguments.seeds, "")
        print(f"| {patch.stem.replace('-', ' ')} | {seed} | {tried} | {what[:110].replace('|', '/')} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
