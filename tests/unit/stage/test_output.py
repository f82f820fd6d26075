import json
import multiprocessing
from pathlib import Path

import pytest

from deeplab.config import Flags
from deeplab.config.base import flag
from deeplab.errors import OutputError
from deeplab.stage import Manifest, OutputFile, OutputFolder, manifest_path
from deeplab.stage import output as output_module
from deeplab.stage.inputs import input_digest


class Work(Flags):
    size: int = flag(1, "Part of the result.")
    steps: int = flag(10, "How long.")
    threads: int = flag(1, "No part of it.", key=False)


def _folder(path: Path, content: str = "a", **values: int) -> OutputFolder:
    return OutputFolder(path, "train", 1, Work(**values), {"data": content}, growing=("steps",), adopts=("checkpoint",))


def _finish(path: Path, **values: int) -> Manifest:
    with _folder(path, **values) as folder:
        (path / "result").write_text("42")
        (path / "log").write_text("took 3 s")
        return folder.finish([path / "result"], [path / "log"])


def test_a_finished_folder_is_recognised(tmp_path: Path) -> None:
    manifest = _finish(tmp_path / "out")
    assert {output.path: output.kind for output in manifest.outputs} == {"result": "product", "log": "record"}
    with _folder(tmp_path / "out", threads=7) as again:
        assert again.finished
    assert input_digest(tmp_path / "out") == manifest.digest


def test_records_are_not_in_the_digest(tmp_path: Path) -> None:
    with _folder(tmp_path / "b") as folder:
        (folder.path / "result").write_text("42")
        (folder.path / "log").write_text("took 5 s")
        second = folder.finish([folder.path / "result"], [folder.path / "log"])
    assert _finish(tmp_path / "a").digest == second.digest


def test_other_flags_are_named(tmp_path: Path) -> None:
    _finish(tmp_path / "out")
    with pytest.raises(OutputError, match="--size is 1 there, 2 given"), _folder(tmp_path / "out", size=2):
        pass
    with pytest.raises(OutputError, match="the content of --data differs"), _folder(tmp_path / "out", "b"):
        pass


def test_an_unfinished_folder_goes_on_only_for_the_same_command(tmp_path: Path) -> None:
    with _folder(tmp_path / "out") as folder:
        (folder.path / "half").write_text("x")
    with pytest.raises(OutputError, match="--size is 1 there, 2 given"), _folder(tmp_path / "out", size=2):
        pass
    with _folder(tmp_path / "out") as again:
        assert not again.finished


def test_a_field_may_grow_but_not_shrink(tmp_path: Path) -> None:
    _finish(tmp_path / "out")
    with _folder(tmp_path / "out", steps=20) as folder:
        assert not folder.finished
        assert not manifest_path(folder.path).exists()
    _finish(tmp_path / "other")
    with (
        pytest.raises(OutputError, match="--steps is 10 there, 5 given"),
        _folder(tmp_path / "other", steps=5),
    ):
        pass


def test_foreign_content_is_refused_unless_adopted(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("x")
    with pytest.raises(OutputError, match=r"not empty \(holiday.jpg\)"), _folder(tmp_path):
        pass
    (tmp_path / "checkpoint").write_text("x")
    with _folder(tmp_path) as folder:
        assert not folder.finished


@pytest.mark.parametrize("damage", ["missing", "size", "content"])
def test_a_damaged_folder_is_not_finished(tmp_path: Path, damage: str) -> None:
    _finish(tmp_path / "out")
    result = tmp_path / "out" / "result"
    if damage == "missing":
        result.unlink()
    else:
        result.write_text("421" if damage == "size" else "43")
    with _folder(tmp_path / "out") as folder:
        assert not folder.finished


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"), _folder(tmp_path / "file" / "out"):
        pass
    with pytest.raises(OutputError, match="is a file"), _folder(tmp_path / "file"):
        pass


def _hold(path: Path, entered: "multiprocessing.synchronize.Event", leave: "multiprocessing.synchronize.Event") -> None:
    with _folder(path):
        entered.set()
        leave.wait(30)


def test_one_writer_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "_LOCK_TIMEOUT", 0.2)
    context = multiprocessing.get_context("spawn")
    entered, leave = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "out", entered, leave))
    process.start()
    try:
        assert entered.wait(30)
        with pytest.raises(OutputError, match="another process is writing there"), _folder(tmp_path / "out"):
            pass
    finally:
        leave.set()
        process.join()
    with _folder(tmp_path / "out"):
        pass


def test_an_output_file_appears_by_rename(tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    with OutputFile(path, "export", 1, Work(), {}) as output:
        output.temporary.write_text("graph")
        assert not path.exists()
        first = output.finish()
    assert path.read_text() == "graph"
    assert json.loads(manifest_path(path).read_text())["stage"] == "export"
    with OutputFile(path, "export", 1, Work(), {}) as again:
        assert again.finished
    with OutputFile(tmp_path / "other.pb", "export", 1, Work(), {}) as output:
        output.temporary.write_text("graph")
        assert output.finish().digest == first.digest


def test_a_failed_output_file_leaves_nothing(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "graph.pb", "export", 1, Work(), {})
    with pytest.raises(RuntimeError), output:
        output.temporary.write_text("half")
        raise RuntimeError
    assert not [entry for entry in tmp_path.iterdir() if "lock" not in entry.name]


def _file(path: Path, text: str, stage: str = "export", **values: int) -> Manifest:
    with OutputFile(path, stage, 1, Work(**values), {}) as output:
        output.temporary.write_text(text)
        output.beside(".model.json").write_text(f"of {text}")
        return output.finish()


def test_a_file_of_another_maker_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    path.write_text("mine")
    for _ in range(2):
        with pytest.raises(OutputError, match=r"graph\.pb: exists and was not made by this stage; name another file"):
            _file(path, "graph")
    assert path.read_text() == "mine"
    _file(tmp_path / "drawn.zip", "pictures", stage="sample")
    with pytest.raises(OutputError, match="not made by this stage"):
        _file(tmp_path / "drawn.zip", "graph")


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_file_of_ours_is_made_anew(tmp_path: Path, forgotten: bool) -> None:
    path = tmp_path / "graph.pb"
    first = _file(path, "graph")
    assert [output.path for output in first.outputs] == ["graph.pb", "graph.pb.model.json"]
    if forgotten:
        manifest_path(path).unlink()
    _file(path, "other", size=2)
    assert path.read_text() == "other"
    assert path.with_name("graph.pb.model.json").read_text() == "of other"


@pytest.mark.parametrize("fails", [1, 2])
def test_an_interrupted_finish_never_leaves_a_file_beside_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    path = tmp_path / "graph.pb"
    _file(path, "graph")
    replace, done = Path.replace, []

    def fail_at(self: Path, target: Path) -> Path:
        if self.name.startswith(".tmp-graph.pb") and not self.name.endswith("made.json"):
            done.append(target.name)
            if len(done) == fails:
                raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_at)
    with pytest.raises(KeyboardInterrupt):
        _file(path, "other", size=2)
    monkeypatch.setattr(Path, "replace", replace)
    assert not path.exists() and not manifest_path(path).exists()
    _file(path, "other", size=2)
    assert path.read_text() == "other"
