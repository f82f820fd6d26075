"""Where the files of a result are read."""

from stored import finish

from tasks.result import StageResult
from tasks.store import Identity, Store


class _Elsewhere:
    """A copy with an execution, whose small files are here."""

    def __init__(self, folder):
        self._folder = folder

    def small_file(self, name):
        return self._folder / name if (self._folder / name).exists() else None


def test_leavings_of_a_broken_attempt_are_not_taken_for_the_result(tmp_path):
    store = Store.open(str(tmp_path / "store"))
    made = finish(
        store.entry(Identity(stage="train", code_version=1, parameters={}, inputs={})), **{"metrics.jsonl": "a"}
    )
    result = StageResult(made, made.manifest(), False, (_Elsewhere(tmp_path),))
    (tmp_path / "metrics.jsonl").write_text("all of it")
    assert result.file("metrics.jsonl") == made.folder / "metrics.jsonl"
    made.invalidate()
    assert result.file("metrics.jsonl") == tmp_path / "metrics.jsonl"
