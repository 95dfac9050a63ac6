#!/usr/bin/env python3
"""Runs the examples of docs/hours.md for Spark and Airflow on an hour that Tidemill has written.

    tests/matrix/readers.py [--binary PATH]

Makes an environment for each below target/tmp/readers, which takes some hundred MB and minutes; Spark needs Java. Prints what each has found, and exits with 1
when that is not what was written.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "readers"))
from page import example  # noqa: E402 - it lies there

PAGE = (ROOT / "docs" / "hours.md").read_text(encoding="utf-8")
PLACE = ROOT / "target" / "tmp" / "readers"
HOUR, EVENTS = 1_700_002_800_000, 3_000
SCHEMA = """{"type": "record", "name": "Play", "fields": [
    {"name": "id", "type": "string"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"""
TOPOLOGY = """
[topology]
name = "plays"
[types.play]
schema = "play.avsc"
time = "at"
id = ["id"]
[sources.lines]
kind = "file"
paths = ["in.tsv"]
[stages.parse]
kind = "tsv"
from = ["lines"]
type_from = { const = "play" }
time = "epoch_ms"
[sinks.files]
kind = "avro_files"
from = ["parse"]
"""


def environment(name, package):
    """The commands of an environment with a package."""
    folder = PLACE / name
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "-q", "install", package], check=True)
        (folder / "done").touch()
    return folder / "bin"


def run(*command, **variables):
    environ = {**os.environ, "PYTHONPATH": str(PLACE), **variables}
    done = subprocess.run(command, cwd=PLACE, env=environ, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=ROOT / "target" / "debug" / "tidemill", type=pathlib.Path)
    arguments = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    for left in ("out", "state", "airflow"):
        shutil.rmtree(PLACE / left, ignore_errors=True)
    (PLACE / "play.avsc").write_text(SCHEMA)
    (PLACE / "plays.toml").write_text(TOPOLOGY)
    (PLACE / "in.tsv").write_text("".join(f"id{number}\t{HOUR + number * 1000}\n" for number in range(EVENTS)))
    settings = [argument for setting in ("output.root=out", "state.root=state", "admin.listen=") for argument in ("--set", setting)]
    run(arguments.binary, "run", "plays.toml", "--until-end", "--progress", "none", *settings)
    (PLACE / "hours.py").write_text(example(PAGE, "import json, pathlib, sys"))

    spark = environment("spark", "pyspark==3.5.7")
    (PLACE / "spark_example.py").write_text(example(PAGE, "from pyspark.sql import SparkSession") + "\nprint(plays.count(), 'events')\n")
    said = run(spark / "python", "spark_example.py")
    print("Spark:", said.strip())

    airflow = environment("airflow-2.11", "apache-airflow==2.11.0")
    dags = PLACE / "airflow" / "dags"
    dags.mkdir(parents=True)
    (dags / "plays.py").write_text(example(PAGE, "import datetime"))
    variables = {"AIRFLOW_HOME": str(dags.parent), "AIRFLOW__CORE__DAGS_FOLDER": str(dags), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    run(airflow / "airflow", "db", "migrate", **variables)
    # The interval of this date is the hour before it.
    found = run(airflow / "airflow", "dags", "test", "plays", "2023-11-15T00:00:00+00:00", **variables)
    found = [line for line in found.split("\n") if " events in " in line]
    print("Airflow:", *found)
    is_right = f"{EVENTS} events" in said and any(line.startswith(f"{EVENTS} events in ") for line in found)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
