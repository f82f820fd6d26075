"""Code versions: ad-hoc packages and the commits of a git repository."""

import hashlib
import io
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import Any

import valohai_yaml
import yaml
from valohai_yaml.objs import Config

from tests.valohai_server.answers import ApiError, Call, invalid, not_found, page
from tests.valohai_server.routing import route
from tests.valohai_server.server import Server
from tests.valohai_server.store import Record, now

_configs: dict[str, Config] = {}
_git_lock = threading.Lock()


def answer(call: Call, commit: Record) -> dict[str, Any]:
    path = f"/api/v0/commits/{commit['identifier']}/"
    shown = {name: value for name, value in commit.items() if name not in ("id", "project", "yaml")}
    shown |= {"project_id": commit["project"], "url": call.host + path, "has_config": True}
    shown |= {"repository": None, "urls": {"display": f"{call.host}/p/commits/{commit['identifier']}/"}}
    if "config" in call.names("include"):
        shown["config"] = yaml.safe_load(commit["yaml"])
    return shown


def find_commit(server: Server, project: str, name: str) -> Record:
    """By identifier, prefix of one, or branch; the newest first.

    Raises:
        ApiError: 400 when the project knows none.
    """
    commits = server.store.find("commit", project=project)[::-1]
    for fits in (
        lambda commit: commit["identifier"] == name,
        lambda commit: name in commit["ref_names"] and not commit["adhoc"],
        lambda commit: len(name) >= 7 and commit["identifier"].startswith(name),
    ):
        if found := next(filter(fits, commits), None):
            return found
    raise invalid("commit", f"No such commit: {name}", "does_not_exist")


def config_of(commit: Record) -> Config:
    """The parsed yaml."""
    if commit["id"] not in _configs:
        _configs[commit["id"]] = valohai_yaml.parse(commit["yaml"])
    return _configs[commit["id"]]


def unpack(server: Server, commit: Record, target: Path) -> None:
    """Put the code of a commit into a folder."""
    if commit["adhoc"]:
        content = (server.folder / "packages" / commit["identifier"]).read_bytes()
    else:
        command = ["git", "-C", str(server.folder / "git"), "archive", commit["identifier"]]
        content = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(target, filter="data")


@route("POST", "/projects/{project}/import-package/")
def import_package(call: Call, project: str) -> dict[str, Any]:
    if call.server.store.get("project", project) is None:
        raise not_found()
    fields = call.body()
    data = fields.get("data")
    if not isinstance(data, bytes):
        raise invalid("data", "No file was submitted.", "required")
    identifier = "~" + hashlib.sha256(data).hexdigest()
    yaml_path = fields.get("yaml_path") or "valohai.yaml"
    text = _yaml_of(data, yaml_path)
    (call.server.folder / "packages" / identifier).write_bytes(data)
    known = call.server.store.get("commit", f"{project}/{identifier}")
    commit = known or _add(call.server, project, identifier, text, yaml_path, description=fields.get("description", ""))
    return answer(call, commit)


def _yaml_of(package: bytes, path: str) -> str:
    try:
        with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
            names = {name.removeprefix("./"): name for name in archive.getnames()}
            if path not in names:
                raise invalid("yaml_path", f"{path}: no such file in the package", "not_found")
            file = archive.extractfile(names[path])
            text = file.read().decode() if file else ""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise invalid("data", f"Not a gzipped tar: {error}") from None
    _check(text)
    return text


def _check(text: str) -> None:
    try:
        result = valohai_yaml.lint.lint(io.StringIO(text))
        errors = [str(item["message"]) for item in result.errors]
    except (yaml.YAMLError, valohai_yaml.ValidationErrors) as error:
        errors = [str(error)]
    if errors:
        raise ApiError(400, {"yaml": [{"message": message, "code": "invalid"} for message in errors]})


def _add(server: Server, project: str, identifier: str, text: str, yaml_path: str, **more: Any) -> Record:
    adhoc = identifier.startswith("~")
    names = ["adhoc"] if adhoc else more.pop("ref_names", [])
    return server.store.add(
        "commit",
        {
            "id": f"{project}/{identifier}",
            "project": project,
            "identifier": identifier,
            "adhoc": adhoc,
            "yaml": text,
            "yaml_path": yaml_path,
            "ref": names[0] if names else "",
            "ref_names": names,
            "commit_time": now(),
            **more,
        },
    )


@route("GET", "/commits/{identifier}/")
def read(call: Call, identifier: str) -> dict[str, Any]:
    project = call.query.get("project")
    found = call.server.store.find("commit", identifier=identifier)
    found = [commit for commit in found if project in (None, commit["project"])]
    if not found:
        raise not_found()
    return answer(call, found[0])


@route("GET", "/commits/")
def listing(call: Call) -> dict[str, Any]:
    rows = _selected(call, call.query.get("project"))
    if "adhoc" in call.query:
        rows = [row for row in rows if row["adhoc"] == call.flag("adhoc")]
    return page(call, rows, lambda row: answer(call, row))


@route("GET", "/projects/{project}/commits/")
def of_project(call: Call, project: str) -> list[dict[str, Any]]:
    return [answer(call, row) for row in _selected(call, project)]


def _selected(call: Call, project: str | None) -> list[Record]:
    rows = call.server.store.find("commit", lambda row: project in (None, row["project"]))
    return sorted(rows, key=lambda row: row["commit_time"], reverse=True)


@route("POST", "/projects/{project}/fetch/")
def fetch(call: Call, project: str) -> dict[str, Any]:
    server = call.server
    if server.store.get("project", project) is None:
        raise not_found()
    if not server.settings.git:
        return {"commits": [], "errors": ["The project has no repository (start the server with --git)."]}
    try:
        with _git_lock:
            return {"commits": _fetch(call, project), "errors": []}
    except subprocess.CalledProcessError as error:
        return {"commits": [], "errors": [error.stderr]}


def _fetch(call: Call, project: str) -> list[dict[str, Any]]:
    server, mirror = call.server, call.server.folder / "git"
    if mirror.exists():
        _git(mirror, "remote", "update", "--prune")
    else:
        _git(server.folder, "clone", "--quiet", "--mirror", str(server.settings.git), str(mirror))
    heads: dict[str, list[str]] = {}
    for line in _git(mirror, "for-each-ref", "--format=%(objectname) %(refname:short)", "refs/heads").splitlines():
        identifier, _, name = line.partition(" ")
        heads.setdefault(identifier, []).append(name)
    for commit in server.store.find("commit", project=project, adhoc=False):
        server.store.update("commit", commit["id"], ref_names=heads.get(commit["identifier"], []))
    fetched = []
    for line in reversed(_git(mirror, "log", "--branches", "-n", "200", "--format=%H %cI %s").splitlines()):
        identifier, moment, subject = line.split(" ", 2)
        commit = server.store.get("commit", f"{project}/{identifier}") or _add_git(
            server, project, identifier, heads.get(identifier, []), moment, subject
        )
        if commit and identifier in heads:
            fetched += [{**answer(call, commit), "ref": name} for name in heads[identifier]]
    return fetched


def _add_git(
    server: Server, project: str, identifier: str, names: list[str], moment: str, subject: str
) -> Record | None:
    path = server.store.find("project", id=project)[0].get("yaml_path", "valohai.yaml")
    try:
        text = _git(server.folder / "git", "show", f"{identifier}:{path}")
        _check(text)
    except (subprocess.CalledProcessError, ApiError):
        return None  # a commit without a usable yaml runs nothing
    return _add(server, project, identifier, text, path, ref_names=names, commit_time=moment, description=subject)


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
