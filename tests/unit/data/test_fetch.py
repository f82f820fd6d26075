import hashlib
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deeplab.data import fetch
from deeplab.errors import FetchError, OutputError
from deeplab.stage import Manifest

_CONTENT = bytes(range(256)) * 100


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "from" / "data set.zip"
    path.parent.mkdir()
    path.write_bytes(_CONTENT)
    return path


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class _Short(_Quiet):
    """Promises more than it sends."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(2 * len(_CONTENT)))
        self.end_headers()
        self.wfile.write(_CONTENT)


class _Forbidden(_Quiet):
    def do_GET(self):
        self.send_error(403)

    do_HEAD = do_GET


class _Lengthless(_Quiet):
    """Tells no length, as servers that compress do."""

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(_CONTENT)


@contextmanager
def _serving(folder, handler=_Quiet):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _fetch(source, folder, **flags):
    fetch.run({"source": str(source), "output_dir": str(folder), **flags})


def _visible(folder):
    return sorted(entry.name for entry in folder.iterdir() if entry.name != ".lock")


@pytest.mark.parametrize("spelling", ["{path}", "file://{quoted}"])
def test_a_local_file_is_copied(source, tmp_path, spelling):
    text = spelling.format(path=source, quoted=str(source).replace(" ", "%20"))
    _fetch(text, tmp_path / "to", sha256=hashlib.sha256(_CONTENT).hexdigest().upper())
    assert _visible(tmp_path / "to") == ["data set.zip", "manifest.json"]
    copy = tmp_path / "to" / "data set.zip"
    assert copy.read_bytes() == _CONTENT and copy.stat().st_ino != source.stat().st_ino


def test_a_file_is_fetched_over_http(source, tmp_path):
    with _serving(source.parent) as address:
        _fetch(f"{address}/data%20set.zip?signature=secret", tmp_path / "to")
    assert (tmp_path / "to" / "data set.zip").read_bytes() == _CONTENT
    assert "secret" not in (tmp_path / "to" / "manifest.json").read_text()


def test_a_server_need_not_tell_the_length(source, tmp_path):
    with _serving(source.parent, _Lengthless) as address:
        _fetch(f"{address}/x.zip", tmp_path / "to")
    assert (tmp_path / "to" / "x.zip").read_bytes() == _CONTENT


def test_any_protocol_of_fsspec_works(tmp_path):
    import fsspec

    fsspec.filesystem("memory").pipe("/container/x.bin", _CONTENT)
    _fetch("memory://container/x.bin", tmp_path / "to")
    assert (tmp_path / "to" / "x.bin").read_bytes() == _CONTENT


def test_a_transfer_cut_short_leaves_nothing(source, tmp_path):
    with _serving(source.parent, _Short) as address, pytest.raises(FetchError, match=r"x\.zip: "):
        _fetch(f"{address}/x.zip", tmp_path / "to")
    assert _visible(tmp_path / "to") == [".unfinished.json"]


def test_another_content_than_promised_leaves_nothing(source, tmp_path):
    found = hashlib.sha256(_CONTENT).hexdigest()
    with pytest.raises(FetchError, match=f"expected sha256 {'a' * 64}, found {found}"):
        _fetch(source, tmp_path / "to", sha256="A" * 64)
    assert _visible(tmp_path / "to") == [".unfinished.json"]
    _fetch(source, tmp_path / "to", sha256=found)
    assert _visible(tmp_path / "to") == ["data set.zip", "manifest.json"]


def test_a_missing_file_is_an_error(source, tmp_path):
    with pytest.raises(FetchError, match=r"none\.zip: no such file; give the path or URL"):
        _fetch(tmp_path / "none.zip", tmp_path / "to")
    with (
        _serving(source.parent) as address,
        pytest.raises(FetchError, match=r"/none\.zip: no such file; check the address$"),
    ):
        _fetch(f"{address}/none.zip?signature=secret", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_refusal_is_told(source, tmp_path):
    with (
        _serving(source.parent, _Forbidden) as address,
        pytest.raises(FetchError, match=r"cannot be read \(403.*credent"),
    ):
        _fetch(f"{address}/x.zip", tmp_path / "to")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gopher9://host/x", "unknown protocol; give a path, file://"),
        ("http://127.0.0.1:9/x.zip?signature=secret", r"/x\.zip: cannot be read \(Connection refused.*check address"),
        ("http://127.0.0.1:9/folder/", "cannot name the file"),
        ("http://127.0.0.1:9/manifest.json", "cannot name the file"),
    ],
)
def test_sources_that_cannot_work(tmp_path, given, message):
    with pytest.raises(FetchError, match=message):
        _fetch(given, tmp_path / "to")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FetchError, match="is a folder; name a file"):
        _fetch(tmp_path, tmp_path / "to")


def test_a_finished_folder_is_left_alone_and_a_changed_source_refused(source, tmp_path, caplog):
    caplog.set_level("INFO")
    _fetch(source, tmp_path / "to")
    manifest = Manifest.read(tmp_path / "to" / "manifest.json")
    _fetch(source, tmp_path / "to")
    assert "already here" in caplog.text
    assert Manifest.read(tmp_path / "to" / "manifest.json") == manifest
    source.write_bytes(_CONTENT + b"more")
    with pytest.raises(OutputError, match="the content of --source differs"):
        _fetch(source, tmp_path / "to")
