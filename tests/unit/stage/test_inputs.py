import os
import time

import pytest

from deeplab.errors import DataError
from deeplab.stage.inputs import archive_digest, files_below, input_digest
from deeplab.stage.manifest import Manifest, describe_output, products_digest


def test_an_input_is_read_again_only_when_it_has_changed(tmp_path):
    """A sweep asks for the digest of its first checkpoint again and again."""
    file = tmp_path / "model.ckpt"
    with file.open("wb") as output:
        output.truncate(200_000_000)
    seconds, digests = [], set()
    for _ in range(2):
        begun = time.perf_counter()
        digests.add(input_digest(file))
        seconds.append(time.perf_counter() - begun)
    assert len(digests) == 1 and seconds[1] < seconds[0] / 10

    stat = file.stat()
    with file.open("r+b") as output:
        output.write(b"another")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert input_digest(file) not in digests, "the time of change was set back"


def _fetched(folder):
    folder.mkdir()
    (folder / "a.zip").write_text("archive")
    output = describe_output(folder, folder / "a.zip", "product")
    manifest = Manifest(
        stage="fetch",
        code_version=1,
        parameters={},
        inputs={},
        outputs=(output,),
        digest=products_digest([output]),
    )
    manifest.write(folder / "manifest.json")
    return manifest.digest


def test_what_was_unpacked_beside_an_archive_counts(tmp_path):
    told = _fetched(tmp_path / "data")
    assert input_digest(tmp_path / "data") == archive_digest(tmp_path / "data", tmp_path / "data" / "a.zip") == told
    (tmp_path / "data" / "mask.png").write_text("one")
    before = input_digest(tmp_path / "data")
    (tmp_path / "data" / "mask.png").write_text("other")
    assert len({told, before, input_digest(tmp_path / "data")}) == 3
    assert archive_digest(tmp_path / "data", tmp_path / "data" / "a.zip") == told


def test_another_tools_manifest_is_a_file_like_others(tmp_path):
    (tmp_path / "manifest.json").write_text('{"images": 3}')
    before = input_digest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"images": 4}')
    assert input_digest(tmp_path) != before
    (tmp_path / "manifest.json").write_text('{"stage": "fetch", "half": ')
    with pytest.raises(DataError, match="not a manifest"):
        input_digest(tmp_path)


def test_linked_folders_are_read_and_links_that_lead_back_are_not(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "loop").symlink_to(tmp_path / "data")
    assert [file.relative_to(tmp_path / "data").as_posix() for file in files_below(tmp_path / "data")] == ["images/a"]


def test_names_that_are_not_utf_8_have_a_digest(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9")).touch()
    assert len(input_digest(tmp_path)) == 64
