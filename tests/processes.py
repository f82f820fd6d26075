"""What processes there are, as the system tells; one that only waits to be collected counts as gone."""

import time
from pathlib import Path


def descendants(pid: int) -> set[int]:
    """The processes that a process started, and those that they did."""
    parents = {child: parent for child, (parent, _) in _all().items()}
    found: set[int] = set()
    grown = {pid}
    while grown:
        grown = {child for child, parent in parents.items() if parent in grown} - found
        found |= grown
    return found


def find(*words: str) -> set[int]:
    """The processes whose command line, or the folder that they run in, has all of these words."""
    return {pid for pid in _all() if all(word in f"{command_of(pid)} {_folder(pid)}" for word in words)}


def left_of(pids: set[int], seconds: float) -> list[str]:
    """The command lines of those that are still there after so many seconds at most."""
    deadline = time.monotonic() + seconds
    while True:
        alive = [pid for pid, (_, state) in _all().items() if pid in pids and state != "Z"]
        if not alive or time.monotonic() > deadline:
            return [command_of(pid) for pid in alive]
        time.sleep(0.2)


def that_mention(text: str) -> dict[int, str]:
    """Those whose command line or environment has a text, such as a folder: number -> command line."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = (place / "cmdline").read_bytes()
            mentioned = text.encode() in line or text.encode() in (place / "environ").read_bytes()
        except OSError:
            continue
        if mentioned:
            found[int(place.name)] = line.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def _folder(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return ""


def _all() -> dict[int, tuple[int, str]]:
    """Process -> its parent and state."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (place / "stat").read_text().rpartition(") ")[2].split()[:2]
        except OSError:
            continue
        found[int(place.name)] = (int(parent), state)
    return found


def command_of(pid: int) -> str:
    """The command line of a process; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
