import hashlib
import io
import json
import tarfile
import threading
import time

import pytest
from filelock import FileLock

from deeplab.config import ModelDescription
from deeplab.data.download import find_origin
from deeplab.data.ledger import kept
from deeplab.errors import ConfigError, DataError, FetchError, OutputError
from deeplab.model.checkpoint import locate
from deeplab.stage import Manifest
from deeplab.zoo.catalogue import read_catalogue
from deeplab.zoo.command import run
from deeplab.zoo.fetch import ZooFetchConfig, fetch

# Its archive's size was never published, so that a small one will do.
MODEL = read_catalogue().find("edgetpu_deeplab")
BACKBONE = read_catalogue().find("resnet_v1_50_beta_imagenet")
NAME = MODEL.archive
FILES = {
    "inside/frozen_inference_graph.pb": b"graph",
    "inside/model.ckpt.index": b"index",
    "inside/model.ckpt.data-00000-of-00001": bytes(range(256)) * 2000,
}


def _archive(files):
    buffer = io.BytesIO()
    # Stored, not packed: its length must be that of its content for a transfer to be cut in the middle.
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = _archive(FILES)
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()
OTHER = _archive({**FILES, "inside/frozen_inference_graph.pb": b"other"})


@pytest.fixture
def zoo(tmp_path):
    return tmp_path / "zoo"


@pytest.fixture
def mirror(tmp_path):
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / MODEL.file_name).write_bytes(ARCHIVE)
    return folder


def _fetch(zoo, mirror, published=MODEL, **flags):
    return fetch(published, ZooFetchConfig(output_dir=str(zoo), mirror=str(mirror), **flags), "http://127.0.0.1:9")


def _visible(folder):
    return sorted(entry.name for entry in folder.iterdir() if entry.name != ".lock")


def _lock(zoo):
    return json.loads((zoo / "zoo.lock.json").read_text())


def test_a_checkpoint_arrives_unpacked_described_and_sealed(zoo, mirror):
    prefix = _fetch(zoo, mirror)
    folder = zoo / NAME
    assert prefix == folder / "model.ckpt"
    assert _visible(zoo) == [NAME, "zoo.lock.json"]
    names = {name.removeprefix("inside/") for name in FILES}
    assert set(_visible(folder)) == {*names, "model.json", "manifest.json"}
    for name, content in FILES.items():
        assert (folder / name.removeprefix("inside/")).read_bytes() == content
    assert ModelDescription.read(folder / "model.json") == MODEL.description()
    manifest = Manifest.read(folder / "manifest.json")
    assert manifest.inputs == {"archive": DIGEST} and manifest.damage(folder, deep=True) is None
    assert _lock(zoo) == {NAME: {"sha256": DIGEST, "size": len(ARCHIVE), "url": str(mirror / MODEL.file_name)}}


def test_a_checkpoint_is_fetched_over_http(zoo, server):
    server.files[f"models/{MODEL.file_name}"] = ARCHIVE
    _fetch(zoo, f"{server.address}/models/?sig=secret")
    assert (zoo / NAME / "model.ckpt.index").read_bytes() == b"index"
    assert _lock(zoo)[NAME]["url"] == f"{server.address}/models/{MODEL.file_name}"


def test_the_environment_names_the_mirror(zoo, mirror, monkeypatch, capsys):
    monkeypatch.setenv("DEEPLAB_ZOO_MIRROR", str(mirror))
    assert run(["fetch", f"--output_dir={zoo}", MODEL.id]) == 0
    assert capsys.readouterr().out == f"{zoo / NAME / 'model.ckpt'}\n"


def test_a_backbone_gets_no_description(zoo, mirror):
    (mirror / BACKBONE.file_name).write_bytes(ARCHIVE)
    _fetch(zoo, mirror, BACKBONE, sha256=DIGEST)
    assert "model.json" not in _visible(zoo / BACKBONE.archive)


def test_what_is_here_is_not_fetched_again(zoo, server, caplog):
    caplog.set_level("INFO")
    server.files[MODEL.file_name] = ARCHIVE
    first = _fetch(zoo, server.address)
    server.requests.clear()
    assert _fetch(zoo, server.address) == first
    assert server.requests == [] and "already here, whole" in caplog.text


def test_a_cut_transfer_goes_on_where_it_stopped(zoo, server):
    server.files[MODEL.file_name] = ARCHIVE
    partial = zoo / f".unfinished-{NAME}" / MODEL.file_name
    server.cut(len(ARCHIVE) // 2)
    with pytest.raises(FetchError, match="the same command goes on from there"):
        _fetch(zoo, server.address)
    assert not (zoo / NAME).exists() and not (zoo / "zoo.lock.json").exists()
    here = kept(find_origin(f"{server.address}/{MODEL.file_name}"), partial)
    server.mend()
    _fetch(zoo, server.address)
    assert here > 0 and server.transfers == [f"bytes={here}-{len(ARCHIVE) - 1}"]
    assert _visible(zoo) == [NAME, "zoo.lock.json"]


def test_a_damaged_copy_is_replaced_and_other_files_are_left(zoo, mirror, caplog):
    _fetch(zoo, mirror)
    (zoo / NAME / "model.ckpt.index").unlink()
    (zoo / NAME / "notes.txt").write_text("mine")
    _fetch(zoo, mirror)
    assert "model.ckpt.index is missing; fetching it again" in caplog.text
    assert (zoo / NAME / "model.ckpt.index").exists() and (zoo / NAME / "notes.txt").exists()
    assert Manifest.read(zoo / NAME / "manifest.json").damage(zoo / NAME) is None


def test_another_content_at_a_later_fetch_is_refused(zoo, mirror, tmp_path):
    _fetch(zoo, mirror)
    (zoo / NAME).rename(tmp_path / "elsewhere")
    (mirror / MODEL.file_name).write_bytes(OTHER)
    found = hashlib.sha256(OTHER).hexdigest()
    for _ in range(2):
        with pytest.raises(
            FetchError, match=f"sha256 is {found}, but .*zoo.lock.json says {DIGEST}; .*remove the entry"
        ):
            _fetch(zoo, mirror)
    assert not (zoo / NAME).exists() and _lock(zoo)[NAME]["sha256"] == DIGEST
    (zoo / "zoo.lock.json").write_text("{}")
    _fetch(zoo, mirror)
    assert _lock(zoo)[NAME]["sha256"] == found


def test_the_lock_file_keeps_the_first_address(zoo, mirror, server, tmp_path):
    _fetch(zoo, mirror)
    first = _lock(zoo)
    (zoo / NAME).rename(tmp_path / "elsewhere")
    server.files[MODEL.file_name] = ARCHIVE
    _fetch(zoo, server.address)
    assert _lock(zoo) == first and (zoo / NAME / "manifest.json").exists()


def test_a_second_process_waits(zoo, mirror, caplog):
    caplog.set_level("INFO")
    zoo.mkdir()
    held = threading.Event()

    def hold():
        with FileLock(zoo / ".lock"):
            held.set()
            time.sleep(0.3)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    _fetch(zoo, mirror)
    other.join()
    assert "another process is fetching there; waiting for it" in caplog.text


def test_later_stages_find_the_checkpoint_and_its_description(zoo, mirror):
    prefix = _fetch(zoo, mirror)
    for place in (prefix, prefix.parent):
        found = locate(place)
        assert (found.prefix, found.description) == (prefix, MODEL.description())


def test_a_digest_may_be_demanded(zoo, mirror):
    with pytest.raises(FetchError, match=f"sha256 is {DIGEST}, but --sha256 says {'a' * 64}; correct the flag"):
        _fetch(zoo, mirror, sha256="A" * 64)
    assert not (zoo / NAME).exists() and not (zoo / "zoo.lock.json").exists()
    _fetch(zoo, mirror, sha256=DIGEST.upper())
    with pytest.raises(ConfigError, match=f"contradicts .*zoo.lock.json, where the first fetch recorded {DIGEST}"):
        _fetch(zoo, mirror, sha256="a" * 64)


def test_a_copy_from_another_archive_is_refused(zoo, mirror):
    _fetch(zoo, mirror)
    (zoo / "zoo.lock.json").unlink()
    with pytest.raises(OutputError, match=f"came from an archive of sha256 {DIGEST}, but --sha256 says {'a' * 64}"):
        _fetch(zoo, mirror, sha256="a" * 64)


def test_a_size_far_from_the_published_one_is_refused_before_the_transfer(zoo, server):
    server.files[BACKBONE.file_name] = ARCHIVE
    with pytest.raises(FetchError, match=r"has 0\.522 MB, but the published archive about 274 MB.*--sha256"):
        _fetch(zoo, server.address, BACKBONE)
    assert server.transfers == []
    _fetch(zoo, server.address, BACKBONE, sha256=DIGEST)
    assert (zoo / BACKBONE.archive).is_dir()


@pytest.mark.parametrize(("megabytes", "fits"), [(0.5, True), (0.45, True), (0.4, False), (0.7, False)])
def test_a_published_size_is_rounded(zoo, mirror, megabytes, fits):
    published = MODEL.model_copy(update={"megabytes": megabytes})
    if fits:
        assert _fetch(zoo, mirror, published).name == "model.ckpt"
    else:
        with pytest.raises(FetchError, match="published archive about"):
            _fetch(zoo, mirror, published)


@pytest.mark.parametrize(
    ("mirror", "message"),
    [
        ("{server}", "no such file; check the address; --mirror=URL or DEEPLAB_ZOO_MIRROR names another place"),
        ("http://127.0.0.1:9/models/", "cannot be read .*--mirror=URL"),
        ("http://no.such.host.invalid/", "cannot be read .*--mirror=URL"),
        ("nowhere", f"nowhere/{MODEL.file_name}: no such file; .*--mirror=URL"),
    ],
)
def test_an_unreachable_archive_points_at_mirrors(zoo, server, mirror, message):
    with pytest.raises(FetchError, match=message):
        _fetch(zoo, mirror.format(server=server.address))
    assert _visible(zoo) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ARCHIVE[: len(ARCHIVE) // 2], "damaged, cut short"),
        (b"<html>not found</html>", "damaged, cut short or no tar archive"),
        (_archive({"inside/readme.txt": b""}), r"holds readme\.txt but no checkpoint"),
        (_archive({"../model.ckpt.index": b""}), "unsafe"),
    ],
)
def test_a_bad_archive_leaves_nothing_and_is_fetched_anew(zoo, mirror, content, message):
    path = mirror / MODEL.file_name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        _fetch(zoo, mirror)
    assert str(caught.value).startswith(f"{path}: ")
    assert not (zoo / NAME).exists() and not (zoo / "zoo.lock.json").exists()
    assert not list(zoo.rglob("*.tar.gz*"))
    path.write_bytes(ARCHIVE)
    assert _fetch(zoo, mirror).name == "model.ckpt"


def test_files_without_a_folder_and_those_of_macos_are_understood(zoo, mirror):
    files = {name.removeprefix("inside/"): content for name, content in FILES.items()}
    (mirror / MODEL.file_name).write_bytes(_archive({**files, "._model.ckpt.index": b"fork"}))
    assert _fetch(zoo, mirror) == zoo / NAME / "model.ckpt"
    assert "._model.ckpt.index" not in _visible(zoo / NAME)


def test_a_folder_from_elsewhere_is_left_alone(zoo, mirror):
    (zoo / NAME).mkdir(parents=True)
    with pytest.raises(OutputError, match="was not made by this command; move it away or choose another --output_dir"):
        _fetch(zoo, mirror)


def test_a_broken_lock_file_is_told(zoo, mirror):
    zoo.mkdir()
    (zoo / "zoo.lock.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"zoo\.lock\.json: not a lock file"):
        _fetch(zoo, mirror)


def test_an_output_dir_that_cannot_be_written_is_told(tmp_path, mirror):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/zoo: cannot be written .*--output_dir"):
        _fetch(tmp_path / "file" / "zoo", mirror)
