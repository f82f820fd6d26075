"""The table of ``docs/reliability.md`` that a test writes."""

from collections.abc import Iterable
from dataclasses import dataclass

from deployments.project_file import ROOT

_FILE = ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- written by tests/integration/test_kill_matrix.py -->", "<!-- end -->"
_HEADINGS = (
    "killed",
    "in the middle of",
    "the run is then",
    "what you do",
    "done twice",
    "training lost, s",
    "kill to that state, s",
    "kill to Completed, s",
)


@dataclass(frozen=True)
class Row:
    """What came of one kill.

    Attributes:
        killed: what was killed.
        during: the stage in whose middle that was.
        state: of the run, as the API tells, before anybody did anything.
        remedy: what a person does.
        again: what was done a second time.
        lost: seconds of training.
        told: seconds from the kill to that state; None: it was the state before.
        completed: seconds from the kill to the end.
    """

    killed: str
    during: str
    state: str
    remedy: str
    again: str
    lost: float
    told: float | None
    completed: float

    @property
    def words(self) -> tuple[str, ...]:
        """The part that is the same in every run."""
        return self.killed, self.during, self.state, self.remedy

    def cells(self) -> tuple[str, ...]:
        told = "" if self.told is None else f"{self.told:.1f}"
        return (*self.words, self.again, f"{self.lost:.1f}", told, f"{self.completed:.0f}")


def documented() -> set[tuple[str, ...]]:
    """The words of every row that is in the docs."""
    return {tuple(cells[:4]) for cells in _rows()}


def _rows() -> list[tuple[str, ...]]:
    lines = _FILE.read_text(encoding="utf-8").partition(_BEGIN)[2].partition(_END)[0].strip().splitlines()[2:]
    return [tuple(cell.strip() for cell in line[1:-1].split("|")) for line in lines]


def write(rows: Iterable[Row]) -> None:
    """Put rows into the docs, in the place of those of the same kill."""
    table = {cells[:2]: cells for cells in (*_rows(), *(row.cells() for row in rows))}
    lines = [_HEADINGS, ("---",) * len(_HEADINGS), *table.values()]
    content = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    before, _, rest = _FILE.read_text(encoding="utf-8").partition(_BEGIN)
    _FILE.write_text(f"{before}{_BEGIN}\n{content}\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")
