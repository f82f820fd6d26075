import hashlib
import json
import os
import signal
import threading
from dataclasses import replace
from functools import partial as bound

import fsspec
import pytest

from deeplab.data import fetch, transfer
from deeplab.data.download import discard, download, find_origin, without_secrets
from deeplab.data.ledger import kept
from deeplab.errors import FetchError, Stopped
from deeplab.stage import stop

CONTENT = bytes(range(256)) * 4000
HALF = len(CONTENT) // 2
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def partial(tmp_path):
    return tmp_path / "partial"


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """What a connection had not delivered as a block when it broke counts as not received."""
    monkeypatch.setattr(transfer, "BLOCK", 8 << 10)


def _download(server, partial):
    return download(find_origin(f"{server.address}/x.zip"), partial)


def _interrupt(server, partial):
    """Leave a part of x.zip behind; returns its length."""
    server.files["x.zip"] = CONTENT
    server.cut(HALF)
    with pytest.raises(
        FetchError, match=r"x\.zip: cannot be read \(403\).* and the same command goes on from there"
    ) as caught:
        _download(server, partial)
    here = kept(find_origin(f"{server.address}/x.zip"), partial)
    assert HALF - transfer.BLOCK <= here <= HALF
    assert f"{here} of {len(CONTENT)} bytes are here" in str(caught.value)
    server.mend()
    return here


def test_only_the_rest_is_requested_after_an_interruption(server, partial):
    here = _interrupt(server, partial)
    assert _download(server, partial) == DIGEST
    assert server.transfers == [f"bytes={here}-{len(CONTENT) - 1}"]
    assert partial.read_bytes() == CONTENT


@pytest.mark.parametrize("boot", ["another", None])
def test_after_a_restart_of_the_system_what_the_disk_had_counts(server, partial, monkeypatch, tmp_path, boot):
    here = _interrupt(server, partial)
    origin, note = find_origin(f"{server.address}/x.zip"), partial.with_name("partial.json")
    content = json.loads(note.read_text())
    assert content["settled"] == content["received"] == [here], "an orderly end leaves all of it on the disk"
    note.write_text(json.dumps({**content, "settled": [here // 2]}))
    assert kept(origin, partial) == here
    monkeypatch.setattr("deeplab.data.ledger._BOOT_ID", tmp_path / "boot")
    if boot:
        (tmp_path / "boot").write_text(boot)
    assert kept(origin, partial) == here // 2
    server.mend()
    assert _download(server, partial) == DIGEST
    assert server.transfers == [f"bytes={here // 2}-{len(CONTENT) - 1}"]
    assert partial.read_bytes() == CONTENT


def test_progress_counts_on_from_what_is_here(server, partial, capsys):
    here = _interrupt(server, partial)
    capsys.readouterr()
    _download(server, partial)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0]["done"] > here and lines[-1]["done"] == lines[-1]["total"] == len(CONTENT)


def test_another_content_under_the_same_address_starts_over(server, partial):
    _interrupt(server, partial)
    server.files["x.zip"] = CONTENT[::-1]
    assert _download(server, partial) == hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert server.transfers == [f"bytes=0-{len(CONTENT) - 1}"]


def test_a_content_replaced_between_look_up_and_transfer_is_an_error(server, partial):
    _interrupt(server, partial)
    origin = find_origin(f"{server.address}/x.zip")
    server.files["x.zip"] = CONTENT[::-1]
    with pytest.raises(FetchError, match="was replaced while it was being downloaded; run the same command again"):
        download(origin, partial)
    assert not list(partial.parent.iterdir())


def test_a_server_without_ranges_sends_it_all_again(server, partial):
    _interrupt(server, partial)
    server.ranges = False
    assert _download(server, partial) == DIGEST
    assert partial.read_bytes() == CONTENT


def test_nothing_is_kept_of_content_without_a_version(server, partial):
    server.files["x.zip"], server.tags = CONTENT, False
    server.cut(HALF)
    with pytest.raises(FetchError, match=r"x\.zip: cannot be read \(403\)"):
        _download(server, partial)
    assert not list(partial.parent.iterdir())


def test_content_without_a_version_is_tried_again(server, partial):
    server.files["x.zip"], server.tags = CONTENT, False
    server.cut(HALF, once=True)
    assert _download(server, partial) == DIGEST
    assert partial.read_bytes() == CONTENT


def test_a_range_of_everything_may_be_answered_as_if_none_was_asked_for(server, partial):
    server.files["x.zip"], server.plain = CONTENT, True
    assert _download(server, partial) == DIGEST


def test_a_server_that_serves_fewer_streams_than_there_are(server, partial, monkeypatch):
    monkeypatch.setattr("deeplab.data.transfer.PATIENCE", 2.0)
    monkeypatch.setattr("deeplab.data.download._RANGE", 4 * server.PART)
    content = os.urandom(64 * server.PART)
    server.files["x.zip"], server.pause = content, 0.06
    server.serve_at_once(1)
    assert _download(server, partial) == hashlib.sha256(content).hexdigest()
    assert partial.read_bytes() == content


def test_a_disk_that_takes_a_part_of_what_is_written(server, partial, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr("os.pwrite", lambda file, block, at: real(file, block[: max(1, len(block) // 2)], at))
    server.files["x.zip"] = CONTENT
    assert _download(server, partial) == DIGEST
    assert partial.read_bytes() == CONTENT


def test_queries_tell_contents_apart_that_nothing_else_does(server):
    server.files["get.zip"], server.tags, server.ranges = CONTENT, False, False
    one, other = (find_origin(f"{server.address}/get.zip?id={number}").identity for number in (1, 2))
    assert one != other and "id=" not in str(one)


def test_a_service_principal_opens_every_form_of_an_address(monkeypatch):
    for name in ("CLIENT_ID", "CLIENT_SECRET", "TENANT_ID"):
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", "x")
    seen = []
    monkeypatch.setattr("deeplab.data.download.find_with_driver", lambda *given: seen.append(given))
    for source in ("azure://mine/deep/a.zip", "https://mine.blob.core.windows.net/deep/a.zip"):
        find_origin(source, "http://here/mine")
    assert [url for url, _ in seen] == ["az://deep/a.zip"] * 2
    assert all(options["account_host"] == "here/mine" and options["client_secret"] == "x" for _, options in seen)


def test_a_whole_partial_file_is_not_requested_again(server, partial):
    server.files["x.zip"] = CONTENT
    _download(server, partial)
    server.mend()
    assert _download(server, partial) == DIGEST
    assert server.transfers == []


@pytest.mark.parametrize("note", ["{}", "[1, 2]", "not JSON", '{"identity": 1, "length": 2, "received": 3}', None])
def test_a_damaged_note_or_file_starts_over(server, partial, note):
    _interrupt(server, partial)
    if note is None:
        partial.write_bytes(CONTENT + b"more")
    else:
        partial.with_name("partial.json").write_text(note)
    assert _download(server, partial) == DIGEST
    assert server.transfers == [f"bytes=0-{len(CONTENT) - 1}"]


def _open_until(source, failure, start, stop):
    """A real file whose reading fails in its middle."""
    file = source.open("rb", buffering=0)
    file.seek(start)

    class Failing:
        close = file.close

        def read(self, count):
            if file.tell() >= HALF:
                raise failure
            return file.read(count)

    return Failing()


@pytest.mark.parametrize("kind", ["path", "memory"])
def test_files_and_other_drivers_resume_too(tmp_path, partial, kind):
    source = tmp_path / "x.zip"
    source.write_bytes(CONTENT)
    if kind == "memory":
        fsspec.filesystem("memory").pipe("/resumed/x.zip", CONTENT)
    origin = find_origin(str(source) if kind == "path" else "memory://resumed/x.zip")
    failing = bound(_open_until, source, FetchError("x.zip: gone"))
    with pytest.raises(FetchError, match=rf"x\.zip: gone; \d+ of {len(CONTENT)} bytes are here"):
        download(replace(origin, open=failing), partial)
    here = kept(origin, partial)
    # What is here is trusted, so a mark in it tells whether it was kept.
    with partial.open("r+b") as file:
        file.write(b"#" * here)
    download(origin, partial)
    assert here >= HALF and partial.read_bytes() == b"#" * here + CONTENT[here:]


@pytest.mark.parametrize("kind", ["path", "memory"])
def test_a_file_that_changes_meanwhile_is_an_error(tmp_path, partial, kind):
    source = tmp_path / "x.zip"
    source.write_bytes(CONTENT)
    memory = fsspec.filesystem("memory")
    memory.pipe("/changed/x.zip", CONTENT)
    origin = find_origin(str(source) if kind == "path" else "memory://changed/x.zip")
    source.write_bytes(CONTENT + b"more")
    memory.pipe("/changed/x.zip", CONTENT + b"more")
    with pytest.raises(FetchError, match="was replaced while it was being downloaded"):
        download(origin, partial)
    assert not partial.exists()


def test_a_request_to_stop_keeps_what_is_here(server, tmp_path, partial):
    server.files["x.zip"] = CONTENT
    server.hold = HALF
    stop.install()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Stopped):
        _download(server, partial)
    timer.join()
    assert kept(find_origin(f"{server.address}/x.zip"), partial) > 0
    server.hold = None
    assert _download(server, partial) == DIGEST


def test_an_empty_file_arrives(tmp_path, partial):
    (tmp_path / "empty").touch()
    assert download(find_origin(str(tmp_path / "empty")), partial) == hashlib.sha256(b"").hexdigest()
    assert partial.exists()


def test_discard_leaves_nothing(tmp_path, partial):
    (tmp_path / "x").write_bytes(CONTENT)
    download(find_origin(str(tmp_path / "x")), partial)
    discard(partial)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_the_fetch_stage_resumes(server, tmp_path):
    flags = {"source": f"{server.address}/x.zip", "output_dir": str(tmp_path / "to")}
    server.files["x.zip"] = CONTENT
    server.cut(HALF)
    with pytest.raises(FetchError, match="goes on from there"):
        fetch.run(flags)
    here = kept(find_origin(flags["source"]), tmp_path / "to" / ".partial")
    server.mend()
    fetch.run(flags)
    assert server.transfers == [f"bytes={here}-{len(CONTENT) - 1}"]
    names = {path.name for path in (tmp_path / "to").iterdir()}
    assert names - {".lock"} == {"x.zip", "manifest.json"}
    assert (tmp_path / "to" / "x.zip").read_bytes() == CONTENT


def test_a_full_disk_is_told_before_the_transfer(server, partial):
    server.files["x.zip"] = CONTENT
    origin = replace(find_origin(f"{server.address}/x.zip"), size=1 << 60)
    with pytest.raises(FetchError, match=rf"needs {1 << 60} bytes more and \d+ are free; make room or choose"):
        download(origin, partial)
    assert server.transfers == []


def test_secrets_stay_out_of_messages():
    text = "ClientError: https://me:word@host/x.zip?sv=1&sig=abc failed (https://host/y?sig=abc)"
    assert without_secrets(text) == "ClientError: https://host/x.zip failed (https://host/y)"
