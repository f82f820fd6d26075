import io
import os
import subprocess
import tarfile

import pytest

from deeplab.data.packing import pack, unpack
from deeplab.errors import DataError


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, size in (("b", 200_000), ("a", 5), ("empty", 0)):
        (folder / name).write_bytes(os.urandom(size))
    return [folder / name for name in ("b", "a", "empty")]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_bytes_depend_on_names_and_contents_only(files, tmp_path, suffix):
    pack(files, tmp_path / f"one{suffix}")
    for path in files:
        os.utime(path, (1, 1))
        path.chmod(0o600)
    pack(reversed(files), tmp_path / f"other{suffix}")
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"other{suffix}").read_bytes()


@pytest.mark.parametrize(("name", "options"), [("x.tar", "-xvf"), ("x.tar.gz", "-xvzf")])
def test_tar_reads_it(files, tmp_path, name, options):
    pack(files, tmp_path / name)
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        ["tar", options, str(tmp_path / name)], cwd=tmp_path / "out", check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["a", "b", "empty"] and not done.stderr
    assert all((tmp_path / "out" / path.name).read_bytes() == path.read_bytes() for path in files)


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_unpack_gives_it_back(files, tmp_path, name):
    pack(files, tmp_path / name)
    unpack(tmp_path / name, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        path.name: path.read_bytes() for path in files
    }


def test_the_gzip_layer_is_whole(files, tmp_path):
    pack(files, tmp_path / "x.tar.gz")
    subprocess.run(["gzip", "-t", str(tmp_path / "x.tar.gz")], check=True)


def test_two_files_of_one_name_are_refused(files, tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(DataError, match="same name"):
        pack([*files, tmp_path / "a"], tmp_path / "x.tar.gz")


def test_a_failed_pack_leaves_nothing(files, tmp_path):
    with pytest.raises(FileNotFoundError):
        pack([*files, tmp_path / "missing"], tmp_path / "x.tar.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("keep", [0, 1, 9, 400, 100_000, -600, -4, -1])
def test_an_archive_cut_short_is_an_error(files, tmp_path, keep):
    archive = tmp_path / "x.tar.gz"
    pack(files, archive)
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"x\.tar\.gz: damaged, cut short or no tar"):
        unpack(archive, tmp_path / "out")


def test_a_changed_byte_is_an_error(files, tmp_path):
    archive = tmp_path / "x.tar.gz"
    pack(files, archive)
    content = bytearray(archive.read_bytes())
    content[100_000] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        unpack(archive, tmp_path / "out")


def _file():
    entry = tarfile.TarInfo("../evil")
    entry.size = 4
    return entry


def _link():
    entry = tarfile.TarInfo("link")
    entry.type, entry.linkname = tarfile.SYMTYPE, "../evil"
    return entry


@pytest.mark.parametrize("entry", [_file(), _link()])
def test_nothing_reaches_outside(tmp_path, entry):
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(DataError, match="unsafe"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "evil").exists() and not (tmp_path / "out" / "link").is_symlink()
