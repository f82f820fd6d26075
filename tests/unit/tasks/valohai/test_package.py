"""The package is the same for the same content, holds what git would, and is uploaded once."""

import hashlib
import os
import subprocess
import tarfile

import pytest

from tasks.valohai import package as package_module
from tasks.valohai.errors import PackageError, ServerFailed
from tasks.valohai.package import ensure_commit, list_files, package_identifier, packed


def write(root, **files):
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.fixture
def root(tmp_path):
    code = tmp_path / "code"
    write(code, train="print(1)\n", deeplab__model="x = 1\n", run="#!/bin/sh\n")
    (code / "valohai.yaml").write_text("[]\n")
    return code


def git(root, *arguments):
    settings = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *settings, *arguments], cwd=root, check=True, capture_output=True)


def test_identical_content_is_an_identical_package(root):
    before = package_identifier(root)
    os.utime(root / "train", (1, 1))
    (root / "train").chmod(0o700)
    (root / "deeplab" / "model").chmod(0o640)
    if os.geteuid() == 0:
        os.chown(root / "train", 1234, 1234)
    assert package_identifier(root) == before
    copy = root.parent / "elsewhere"
    subprocess.run(["cp", "-r", str(root), str(copy)], check=True)
    assert package_identifier(copy) == before
    (root / "train").write_text("print(2)\n")
    assert package_identifier(root) != before


def test_the_identifier_is_the_digest_of_the_bytes(root):
    with packed(root) as package:
        assert package.identifier == "~" + hashlib.sha256(package.path.read_bytes()).hexdigest()
        with tarfile.open(package.path) as tar:
            assert tar.getnames() == ["deeplab/model", "run", "train", "valohai.yaml"]
            assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}
            assert tar.getmember("run").mode == 0o755 and tar.getmember("train").mode == 0o644
    assert not package.path.exists()


def test_with_git_what_it_tracks_or_would_track(root):
    write(root, **{".gitignore": "*.log\n", "a.log": "", "tracked.log": "", "deleted": "", "new": "", "ä ö": ""})
    git(root, "init")
    git(root, "add", "--force", "train", "deeplab", "deleted", "tracked.log")
    git(root, "commit", "-m", "x")
    (root / "deleted").unlink()
    assert list_files(root) == ["deeplab/model", "new", "run", "tracked.log", "train", "valohai.yaml", "ä ö"]
    assert list_files(root / "deeplab") == ["model"]


def test_a_repository_of_somebody_else(root):
    write(root, **{".gitignore": "deeplab\n"})
    git(root, "init")
    if os.geteuid() == 0:
        os.chown(root, 1234, 1234)
        os.chown(root / ".git", 1234, 1234)
    assert "deeplab/model" not in list_files(root)


def test_submodules_are_part_of_it(root, tmp_path):
    other = tmp_path / "other"
    write(other, inner="x")
    for place in (other, root):
        git(place, "init")
        git(place, "add", ".")
        git(place, "commit", "-m", "x")
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", str(other), "sub")
    assert "sub/inner" in list_files(root)


def test_vhignore_and_dot_names(root):
    write(root, **{".vhignore": "deeplab/*\n!deeplab/kept\n*.zip\n", "deeplab__kept": "", "a.zip": "", ".secret": "",
                   "sub__.hidden": ""})  # fmt: skip
    assert list_files(root) == ["deeplab/kept", "run", "train", "valohai.yaml"]
    git(root, "init")
    assert list_files(root) == ["deeplab/kept", "run", "sub/.hidden", "train", "valohai.yaml"]


def test_links(root):
    (root / "inside").symlink_to("deeplab/model")
    (root / "folder").symlink_to("deeplab")
    with packed(root) as package, tarfile.open(package.path) as tar:
        assert tar.getmember("inside").linkname == "deeplab/model"
        assert tar.getmember("folder").issym()
    (root / "outside").symlink_to("../..")
    with pytest.raises(PackageError, match=r"outside.*\.vhignore"):
        list_files(root)


def test_limits(root, monkeypatch):
    with pytest.raises(PackageError, match=r"other\.yaml is missing"):
        package_identifier(root, "other.yaml")
    monkeypatch.setattr(package_module, "LARGE_FILE", 5)
    with packed(root) as package:
        assert "which is much" in package.warnings[0]
    for name, limit, text in (("MOST_FILES", 3, "4 files"), ("MOST_UNPACKED", 10, "MiB"), ("MOST_PACKED", 10, "MiB")):
        with monkeypatch.context() as patch:
            patch.setattr(package_module, name, limit)
            with pytest.raises(PackageError, match=rf"{text}.*\.vhignore"):
                package_identifier(root)


def test_it_is_uploaded_once(client, service, root):
    first = ensure_commit(client, root)
    os.utime(root / "train", (1, 1))
    assert ensure_commit(client, root).identifier == first.identifier == package_identifier(root)
    (upload,) = service.uploads
    data, yaml = b'name="data"; filename="data.tgz"', b'name="yaml_path"\r\n\r\nvalohai.yaml'
    order = [upload.index(part) for part in (data, b"application/gzip", b'name="description"', yaml)]
    assert order == sorted(order)


def test_a_package_of_another_project_does_not_count(client, service, root):
    service.commits = [{"identifier": package_identifier(root), "adhoc": True, "project_id": "another"}]
    ensure_commit(client, root)
    assert len(service.uploads) == 1


@pytest.mark.parametrize(("fault", "uploads"), [("lost", 1), ("cut", 1), (503, 1)])
def test_an_upload_without_an_answer(client, service, root, fault, uploads):
    service.faults = [("POST", "import-package", fault)]
    assert ensure_commit(client, root).identifier == package_identifier(root)
    assert len(service.uploads) == uploads


def test_an_upload_that_never_works(client, service, root):
    service.faults = [("POST", "import-package", 503)] * 4
    with pytest.raises(ServerFailed):
        ensure_commit(client, root)


def test_a_git_commit_that_the_project_knows_or_can_fetch(client, service, root):
    service.commits = [{"identifier": "a" * 40, "commit_time": "2026-01-01"}]
    service.fetched = [{"identifier": "b" * 40, "commit_time": "2026-01-02"}]
    assert ensure_commit(client, root, commit="aaaa").identifier == "a" * 40
    assert not service.paths("POST")
    assert ensure_commit(client, root, commit="b" * 40).identifier == "b" * 40
    assert len(service.paths("POST", "fetch")) == 1
    with pytest.raises(PackageError, match="push it"):
        ensure_commit(client, root, commit="cccc")


def test_head(client, service, root):
    with pytest.raises(PackageError, match="no git repository"):
        ensure_commit(client, root, commit="HEAD")
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "x")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True).stdout.strip()
    service.commits = [{"identifier": head, "commit_time": ""}]
    assert ensure_commit(client, root, commit="HEAD").identifier == head
    write(root, new="")
    with pytest.raises(PackageError, match="has changes"):
        ensure_commit(client, root, commit="HEAD")
