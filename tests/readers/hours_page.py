"""Runs the examples of docs/hours.md on an output root, and prints what they find.

    hours_page.py PAGE OUT HOUR_DIRECTORY

`OUT` takes the place of `out` in them. Prints an object: `all` and `first` are what the Python example says of the hour, as it is now and pinned to its first revision; `table` are
the rows that DuckDB finds.
"""

import json
import subprocess
import sys
import tempfile

import duckdb

from page import example


page, out, directory = open(sys.argv[1], encoding="utf-8").read(), sys.argv[2], sys.argv[3]
with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
    script.write(example(page, "import json, pathlib, sys"))
    script.flush()

    def told(*arguments):
        done = subprocess.run([sys.executable, script.name, *arguments], capture_output=True, text=True)
        return {"code": done.returncode, "said": json.loads(done.stdout or "null"), "error": done.stderr}

    found = {"all": told(directory), "first": told(directory, "0", "0"), "none": told(directory + "-not-there")}
query = example(page, "with manifests as (").replace("'out/", f"'{out}/")
found["table"] = [list(map(str, row)) for row in duckdb.sql(query).fetchall()]
print(json.dumps(found))
