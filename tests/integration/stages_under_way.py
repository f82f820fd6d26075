"""Whether a stage of a run is in the midst of its work, here or as an execution."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.integration.remote_runs import Lab
from tests.processes import command_of, descendants, find


class Begun(NamedTuple):
    """A stage that is under way.

    Attributes:
        processes: its processes.
        finished: whether it has come to its end after all.
    """

    processes: set[int]
    finished: Callable[[], bool]


def here(stage: str, store: Path) -> Begun | None:
    """A stage that runs on this machine, once it is in the midst of its work."""
    processes = find(f"-m deeplab {stage} ", f"{store}/{stage}/")
    found = re.search(f"{re.escape(str(store))}/{stage}/[0-9a-f]+", command_of(min(processes, default=0)))
    if found is None:
        return None
    folder = Path(found[0])
    if stage == "train":
        inside = any(folder.glob("model.ckpt-*.index"))
    else:
        # Packing and exporting are over in seconds, and report no progress.
        inside = stage in ("archive", "export") or '"progress"' in folder.with_suffix(".log").read_text()
    return Begun(processes, lambda: any(folder.glob("*manifest.json"))) if inside else None


def there(stage: str, lab: Lab) -> Begun | None:
    """A stage that runs as an execution, once it is in the midst of its work."""
    row = lab.execution(stage)
    if row is None or row["status"] != "started":
        return None
    mark = {"train": '"step"', "export": ""}.get(stage, '"progress"')
    number = lab.server.data / "executions" / row["id"] / "process"
    if mark not in "".join(lab.events(row)) or not number.exists():
        return None
    processes = {pid for pid in descendants(int(number.read_text())) if f"deeplab {stage} " in command_of(pid)}
    return Begun(processes, lambda: _status(lab, row["id"]) == "complete") if processes else None


def _status(lab: Lab, identifier: str) -> str:
    return str(next(row["status"] for row in lab.executions() if row["id"] == identifier))
