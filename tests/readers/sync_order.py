#!/usr/bin/env python3
"""Reads a trace of a run's system calls beside the ledgers that the run has left, and says where something was not durable when it had to be.

    strace -f -y -qq -s 0 -e trace=pwrite64,fsync,syncfs,renameat2,openat -o TRACE tidemill run ...
    sync_order.py TRACE STATE_ROOT OUTPUT_ROOT

To be run where the traced program ran. The run must be the first of its state, so that its ledgers have all records. When a record is appended to a ledger:
every Log that it names has been synced up to its length there, so has the state, and so have the directories in which they were made. When a file is moved to its
place: the record that publishes it has been synced. When a mark says that it is published: the directories have been synced that it was moved from and to.
Prints a summary as JSON; exits with 1 and a list when something is out of order.
"""

import json
import os
import re
import sys
from collections import defaultdict

WHOLE = re.compile(r"^(\d+)\s+(\w+)\((.*)\)\s+= (-?\d+)(?:<(.*)>)?")
OPENED = re.compile(r"^(\d+)\s+(\w+)\((.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)\)\s+= (-?\d+)(?:<(.*)>)?")
PATH = re.compile(r"<([^<>]*)>")
TEXT = re.compile(r'"([^"]*)"')


def records(path):
    """The records of a ledger, as `ledger.rs` describes them: length, checksum, JSON."""
    content = open(path, "rb").read()
    at = 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "little")
        yield json.loads(content[at + 8 : at + 8 + length])
        at += 8 + length


class Trace:
    def __init__(self, state, output):
        self.state, self.output = os.path.realpath(state), os.path.realpath(output)
        # By ledger: its records, how many of them were appended and synced.
        self.ledgers, self.appended, self.synced_records = {}, defaultdict(int), defaultdict(int)
        # By file: bytes written and bytes synced. By directory: what was made there or moved since it was synced.
        self.written, self.durable, self.made = defaultdict(int), defaultdict(int), defaultdict(set)
        self.publishes, self.moved_dirs, self.wrong = {}, defaultdict(set), []
        self.moves = self.syncs = self.published = 0
        # By region: the cut that its mark says is published.
        self.marked = defaultdict(int)
        for folder, _, names in os.walk(self.state):
            for name in filter(lambda name: name.startswith("ledger-"), names):
                path = os.path.join(folder, name)
                self.ledgers[path] = list(records(path))
                for at, record in enumerate(self.ledgers[path]):
                    for said in record["stages"].values():
                        for publication in said.get("publications", []):
                            self.publishes[os.path.join(self.output, publication["path"])] = (path, at)

    def complain(self, what, path):
        self.wrong.append(f"{what}: {path}")

    def check_durable(self, what, path, length):
        if self.durable[path] < length:
            self.complain(f"{what} with {length} bytes of this, of which {self.durable[path]} are synced", path)
        if path in self.made[os.path.dirname(path)]:
            self.complain(f"{what} before the directory of this is synced", path)

    def appends(self, ledger):
        at = self.appended[ledger]
        self.appended[ledger] += 1
        if at >= len(self.ledgers[ledger]):
            return
        record, what = self.ledgers[ledger][at], f"record {at} of {os.path.relpath(ledger, self.state)} is appended"
        if record["cut"] == 0:
            return
        pieces = record["pieces"]
        segment = os.path.join(os.path.dirname(ledger), f"pieces-{pieces['last']:08}.log")
        self.check_durable(what, segment, pieces["length"])
        for stage, said in record["stages"].items():
            homes = {"State": os.path.join(self.state, "logs", stage), "Output": os.path.join(self.output, ".tidemill-staging", stage)}
            for log, length in said.get("logs", []):
                self.check_durable(what, os.path.join(homes[log["home"]], log["name"] + ".staged"), length)

    def marks(self, path):
        """A cut is said to be published, in the name of a file beside the ledger."""
        region, name = os.path.split(path)
        if not name.startswith("published-"):
            return
        self.published += 1
        self.marked[region] = int(name.removeprefix("published-"))
        for folder in self.moved_dirs.pop(region, ()):
            if self.made[folder]:
                self.complain(f"{name} is set before this is synced, where files were moved", folder)

    def begins(self, name, arguments):
        """What a sync will have made durable when it returns: what was written before it began."""
        if name == "fsync":
            path = PATH.findall(arguments)[0]
            return (path, self.written[path], set(self.made[path]), self.appended[path])
        if name == "syncfs":
            return (dict(self.written), {folder: set(names) for folder, names in self.made.items()})
        return None

    def returns(self, name, arguments, result, returned, began):
        paths = PATH.findall(arguments)
        texts = [os.path.realpath(text) for text in TEXT.findall(arguments)]
        if name == "pwrite64":
            offset = int(re.split(r",\s*", arguments)[-1])
            self.written[paths[0]] = max(self.written[paths[0]], offset + result)
            if paths[0] in self.ledgers:
                self.appends(paths[0])
        elif name == "openat" and "O_CREAT" in arguments and returned and returned not in self.written:
            self.written[returned] = 0
            self.made[os.path.dirname(returned)].add(returned)
            self.marks(returned)
        elif name == "fsync":
            self.syncs += 1
            path, written, made, appended = began
            self.durable[path] = max(self.durable[path], written)
            self.made[path] -= made
            self.synced_records[path] = max(self.synced_records[path], appended)
        elif name == "syncfs":
            self.syncs += 1
            written, made = began
            for path, length in written.items():
                self.durable[path] = max(self.durable[path], length)
            for folder, names in made.items():
                self.made[folder] -= names
        elif name == "renameat2" and texts[-1] in self.publishes:
            self.moves += 1
            old, new = texts
            ledger, at = self.publishes[new]
            if self.synced_records[ledger] <= at:
                self.complain("moved before the record that publishes it is synced", new)
            if self.marked[os.path.dirname(ledger)] >= self.ledgers[ledger][at]["cut"]:
                self.complain("moved behind the mark that says that it is published", new)
            for folder, path in ((os.path.dirname(old), old), (os.path.dirname(new), new)):
                self.made[folder].add(path)
                self.moved_dirs[os.path.dirname(ledger)].add(folder)
        elif name == "renameat2":
            self.marks(texts[-1])

    def read(self, path):
        open_calls = {}
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in map(str.rstrip, lines):
                if opened := OPENED.match(line):
                    thread, name, arguments = opened.groups()
                    open_calls[thread] = (name, arguments, self.begins(name, arguments))
                elif resumed := RESUMED.match(line):
                    thread, _, rest, result, returned = resumed.groups()
                    name, arguments, began = open_calls.pop(thread, (None, "", None))
                    if name and int(result) >= 0:
                        self.returns(name, arguments + rest, int(result), returned, began)
                elif whole := WHOLE.match(line):
                    _, name, arguments, result, returned = whole.groups()
                    if int(result) >= 0:
                        self.returns(name, arguments, int(result), returned, self.begins(name, arguments))


def main():
    trace = Trace(sys.argv[2], sys.argv[3])
    trace.read(sys.argv[1])
    summary = {"records": sum(trace.appended[path] for path in trace.ledgers), "moves": trace.moves, "syncs": trace.syncs, "published": trace.published}
    print(json.dumps(summary | {"wrong": len(trace.wrong)}))
    if trace.wrong:
        print("\n".join(trace.wrong[:40]), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
