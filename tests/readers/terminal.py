#!/usr/bin/env python3
"""Runs a program in a terminal of a given size, and prints what is on it at the end.

    terminal.py COLUMNS ROWS TEXT -- PROGRAM ARGUMENT ...

When TEXT has come up and the screen was cleared some more times after that, Ctrl-C is typed. Prints JSON: `exit`, and `lines`,
all that was ever shown, scrolled off or not, each as wide as the terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

DEADLINE_S = 90
REDRAWS = 5


class Screen:
    """What a terminal makes of the few things that a program sends it. Anything else is an error."""

    def __init__(self, columns, rows):
        self.columns, self.rows = columns, rows
        self.gone, self.lines = [], [[" "] * columns for _ in range(rows)]
        self.row = self.column = self.clears = 0
        self.rest = ""

    def feed(self, text):
        text = self.rest + text
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                found = re.match(r"\x1b\[([0-9;?]*)([A-Za-z])", text[at:])
                if not found:
                    break
                self.control(*found.groups())
                at += found.end()
                continue
            self.put(text[at])
            at += 1
        self.rest = text[at:]

    def control(self, argument, what):
        if what == "A":
            self.row = max(0, self.row - int(argument or 1))
        elif what == "J" and not argument:
            self.clears += 1
            self.lines[self.row][self.column:] = [" "] * (self.columns - self.column)
            for row in range(self.row + 1, self.rows):
                self.lines[row] = [" "] * self.columns
        elif what != "m":
            raise ValueError(f"what is CSI {argument}{what}?")

    def put(self, char):
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.down()
        else:
            # The cursor stays behind the last column until something comes that has no room there.
            if self.column == self.columns:
                self.column = 0
                self.down()
            self.lines[self.row][self.column] = char
            self.column += 1

    def down(self):
        self.row += 1
        if self.row == self.rows:
            self.gone.append(self.lines.pop(0))
            self.lines.append([" "] * self.columns)
            self.row -= 1

    def text(self):
        return ["".join(line) for line in self.gone + self.lines]


def main():
    columns, rows, text, dashes, *command = sys.argv[1:]
    assert dashes == "--", __doc__
    screen = Screen(int(columns), int(rows))
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", screen.rows, screen.columns, 0, 0))
        # Else Ctrl-C would throw away what has been written and not yet been read.
        modes = termios.tcgetattr(0)
        modes[3] |= termios.NOFLSH
        termios.tcsetattr(0, termios.TCSANOW, modes)
        os.execv(command[0], command)
    end, seen_at, typed, received = time.monotonic() + DEADLINE_S, None, False, b""
    while True:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            sys.exit("it hangs; on the screen is:\n" + "\n".join(screen.text()))
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            chunk = os.read(terminal, 1 << 16)
        except OSError:
            break
        if not chunk:
            break
        received += chunk
        whole = received[: len(received) - partial(received)]
        received = received[len(whole):]
        screen.feed(whole.decode())
        if seen_at is None and text in "".join(screen.text()):
            seen_at = screen.clears
        if not typed and seen_at is not None and screen.clears >= seen_at + REDRAWS:
            os.write(terminal, b"\x03")
            typed = True
    _, status = os.waitpid(pid, 0)
    print(json.dumps({"exit": os.waitstatus_to_exitcode(status), "lines": screen.text()}))


def partial(data):
    """How many bytes at the end are a character that has not come whole."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
        if byte < 0x80:
            return 0
    return 0


main()
