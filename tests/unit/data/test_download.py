import dataclasses
import hashlib
import io
import json
import signal

import fsspec
import pytest

from deeplab.data import fetch
from deeplab.data.download import discard, download, find_origin, without_secrets
from deeplab.errors import FetchError, Stopped

CONTENT = bytes(range(256)) * 4000
HALF = len(CONTENT) // 2
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def partial(tmp_path):
    return tmp_path / "partial"


def _interrupt(server, partial):
    """Leave a part of x.zip behind; returns its length."""
    server.files["x.zip"] = CONTENT
    server.cut(HALF, partial)
    with pytest.raises(FetchError, match=r"x\.zip: .* and the same command goes on from there") as caught:
        download(find_origin(f"{server.address}/x.zip"), partial)
    kept = partial.stat().st_size
    assert 0 < kept <= HALF
    assert f"{kept} of {len(CONTENT)} bytes are here" in str(caught.value)
    server.requests.clear()
    return kept


def _download(server, partial):
    return download(find_origin(f"{server.address}/x.zip"), partial)


def test_only_the_rest_is_requested_after_an_interruption(server, partial):
    kept = _interrupt(server, partial)
    assert _download(server, partial) == DIGEST
    assert server.transfers == [f"bytes={kept}-"]
    assert partial.read_bytes() == CONTENT


def test_progress_counts_on_from_what_is_here(server, partial, capsys):
    _interrupt(server, partial)
    capsys.readouterr()
    _download(server, partial)
    last = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert last["done"] == last["total"] == len(CONTENT)


def test_another_content_under_the_same_address_starts_over(server, partial):
    _interrupt(server, partial)
    server.files["x.zip"] = CONTENT[::-1]
    assert _download(server, partial) == hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert server.transfers == [None]


def test_a_content_replaced_between_look_up_and_transfer_starts_over(server, partial):
    kept = _interrupt(server, partial)
    origin = find_origin(f"{server.address}/x.zip")
    server.files["x.zip"] = CONTENT[::-1]
    assert download(origin, partial) == hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert server.transfers == [f"bytes={kept}-"]


def test_a_server_without_ranges_sends_it_all_again(server, partial):
    _interrupt(server, partial)
    server.ranges = False
    assert _download(server, partial) == DIGEST
    assert partial.read_bytes() == CONTENT


def test_nothing_is_kept_of_content_without_a_version(server, partial):
    server.files["x.zip"], server.tags = CONTENT, False
    server.cut(HALF, partial)
    with pytest.raises(FetchError, match=r"x\.zip: "):
        _download(server, partial)
    assert not list(partial.parent.iterdir())


def test_a_whole_partial_file_is_not_requested_again(server, partial):
    server.files["x.zip"] = CONTENT
    _download(server, partial)
    server.requests.clear()
    assert _download(server, partial) == DIGEST
    assert server.transfers == []


def test_a_longer_partial_file_starts_over(server, partial):
    server.files["x.zip"] = CONTENT
    _download(server, partial)
    partial.write_bytes(CONTENT + b"more")
    assert _download(server, partial) == DIGEST


@pytest.mark.parametrize("kind", ["path", "memory"])
def test_files_and_other_drivers_resume_too(tmp_path, partial, kind):
    source = tmp_path / "x.zip"
    source.write_bytes(CONTENT)
    if kind == "memory":
        fsspec.filesystem("memory").pipe("/resumed/x.zip", CONTENT)
    origin = find_origin(str(source) if kind == "path" else "memory://resumed/x.zip")
    download(origin, partial)
    # What is here is trusted, so a mark in it tells whether it was kept.
    partial.write_bytes(b"#" * HALF)
    download(origin, partial)
    assert partial.read_bytes() == b"#" * HALF + CONTENT[HALF:]


def test_a_request_to_stop_is_no_unreadable_source_and_keeps_what_is_here(tmp_path, partial):
    (tmp_path / "x.zip").write_bytes(CONTENT)
    origin = find_origin(str(tmp_path / "x.zip"))

    class Stopping(io.BytesIO):
        def read(self, count=-1):
            if self.tell() == HALF:
                raise Stopped(signal.SIGTERM)
            return super().read(HALF)

    with pytest.raises(Stopped):
        download(dataclasses.replace(origin, open=lambda offset: (Stopping(CONTENT), 0)), partial)
    assert partial.read_bytes() == CONTENT[:HALF]
    assert download(origin, partial) == DIGEST


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
    server.files["x.zip"], partial = CONTENT, tmp_path / "to" / ".partial"
    server.cut(HALF, partial)
    with pytest.raises(FetchError, match="goes on from there"):
        fetch.run(flags)
    kept = partial.stat().st_size
    server.requests.clear()
    fetch.run(flags)
    assert server.transfers == [f"bytes={kept}-"]
    names = {path.name for path in (tmp_path / "to").iterdir()}
    assert names - {".lock"} == {"x.zip", "manifest.json"}
    assert (tmp_path / "to" / "x.zip").read_bytes() == CONTENT


def test_secrets_stay_out_of_messages():
    text = "ClientError: https://me:word@host/x.zip?sv=1&sig=abc failed (https://host/y?sig=abc)"
    assert without_secrets(text) == "ClientError: https://host/x.zip failed (https://host/y)"
