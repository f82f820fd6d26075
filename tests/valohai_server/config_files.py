"""The files of /valohai/config and the variables that tell an execution who it is."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.valohai_server.server import Server
from tests.valohai_server.store import Record

# What the machine needs goes through; what would tell the code more than a real machine knows does not.
HIDDEN = ("VALOHAI_", "VH_", "PREFECT_", "PYTHON", "AZURE_", "PYTEST_", "VIRTUAL_ENV")


def write(folder: Path, name: str, content: Any) -> None:
    """As JSON and as YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content, indent=2))
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))


def description(server: Server, execution: Record) -> dict[str, Any]:
    """The content of execution.json."""
    project = server.store.get("project", execution["project"]) or {"name": ""}
    environment = server.environment(execution["environment"]) or {}
    facts: dict[str, Any] = {
        "commit-identifier": execution["commit"],
        "creator-email": None,
        "creator-id": 1,
        "creator-name": server.user["username"],
        "environment-id": environment.get("id"),
        "environment-name": environment.get("name"),
        "environment-slug": environment.get("slug"),
        "execution-counter": execution["counter"],
        "execution-ctime": execution["ctime"].replace("Z", "+00:00"),
        "execution-duration": None,
        "execution-id": execution["id"],
        "execution-image": execution["image"],
        "execution-qtime": execution["qtime"],
        "execution-status": execution["status"],
        "execution-step": execution["step"],
        "execution-tags": execution["tags"],
        "execution-title": execution["title"] or None,
        "project-id": execution["project"],
        "project-name": f"{server.user['username']}/{project['name']}",
    }
    for kind in ("task", "pipeline"):
        parent = server.store.get(kind, execution[kind]) if execution[kind] else None
        if parent:
            facts |= {f"{kind}-id": parent["id"], f"{kind}-counter": parent["counter"]}
            if kind == "pipeline":
                facts |= {"pipeline-title": parent["title"], "pipeline-tags": parent["tags"]}
                facts |= {"pipeline-node-id": execution["node"]}
    return {f"valohai.{name}": value for name, value in facts.items()}


def environment(execution: Record, root: str) -> dict[str, str]:
    """The variables of the process; ``root`` is where it sees its folders."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables.get('PATH', os.defpath)}"
    variables |= {f"VH_{name.upper()}_DIR": f"{root}/{name}" for name in ("repository", "inputs", "outputs", "config")}
    variables |= {
        "VH_JOB_ID": f"exec-{execution['id']}",
        "VH_EXECUTION_ID": execution["id"],
        "VH_PROJECT_ID": execution["project"],
        "VH_TASK_ID": execution["task"] or "",
        "VH_PIPELINE_ID": execution["pipeline"] or "",
        "VH_PIPELINE_NODE_ID": execution["node"] or "",
    }
    return {**{name: value for name, value in variables.items() if value}, **execution["environment_variables"]}
