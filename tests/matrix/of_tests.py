"""Runs the program again with the Python that the tests have set up, if it is there. To be imported before anything that comes from a package."""

import os
import pathlib
import sys

PYTHON = pathlib.Path(__file__).resolve().parents[2] / "target" / "tmp" / "python" / "bin" / "python"
if PYTHON.exists() and pathlib.Path(sys.prefix) != PYTHON.parents[1]:
    os.execv(PYTHON, [str(PYTHON), *sys.argv])
