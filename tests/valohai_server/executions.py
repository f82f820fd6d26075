"""Executions: making, reading, listing, stopping."""

from typing import Any

from valohai_yaml.objs import Step

from tests.valohai_server.answers import Call, Created, invalid, not_found, ordered, page, wanted
from tests.valohai_server.commands import interpolated, parameter_values
from tests.valohai_server.commits import config_of, find_commit
from tests.valohai_server.data import resolve_url
from tests.valohai_server.durations import seconds
from tests.valohai_server.events import parse_time
from tests.valohai_server.routing import route
from tests.valohai_server.server import Server
from tests.valohai_server.store import Record, now

FINAL = ("complete", "error", "crashed", "stopped")
INCOMPLETE = ("created", "queued", "started", "stopping")


def create(server: Server, fields: dict[str, Any], delay: float = 0.0, **links: Any) -> Record:
    """Check the fields of ``POST /executions/`` and put the execution into the queue.

    Args:
        server: the server.
        fields: what was sent.
        delay: seconds that it stays queued at least.
        links: task, pipeline and node that it belongs to.

    Raises:
        ApiError: 400 with the field that is wrong.
    """
    project = server.store.get("project", str(fields.get("project")))
    if project is None:
        raise invalid("project", "No such project.", "does_not_exist")
    for name in ("commit", "step"):
        if not fields.get(name):
            raise invalid(name, "This field is required.", "required")
    commit = find_commit(server, project["id"], fields["commit"])
    step = config_of(commit).steps.get(fields["step"])
    if step is None:
        raise invalid("step", f"No such step: {fields['step']}", "does_not_exist")
    environment = server.environment(fields.get("environment"))
    if environment is None:
        raise invalid("environment", "No such environment.", "does_not_exist")
    values = parameter_values(step, _object(fields, "parameters"))
    command = fields.get("command") or step.command
    record = {
        "project": project["id"],
        "commit": commit["identifier"],
        "step": step.name,
        "title": fields.get("title") or "",
        "status": "created",
        "status_detail": None,
        "environment": environment["slug"],
        "image": fields.get("image") or step.image,
        "command": command if isinstance(command, str) else "\n".join(command),
        "pieces": interpolated(step, values, command),
        "parameters": values,
        "inputs": _inputs(server, project["id"], step, _object(fields, "inputs"), values),
        "environment_variables": _variables(project, step, fields),
        "tags": list(fields.get("tags") or []),
        "priority": fields.get("priority") or 0,
        "runtime_config": fields.get("runtime_config") or {},
        "time_limit": seconds(_first(fields.get("time_limit"), step.time_limit)),
        "no_output_timeout": _no_output_timeout(step, fields),
        "stop_expression": fields.get("stop_expression") or step.stop_condition or "",
        "qtime": None,
        "start_time": None,
        "end_time": None,
        "deleted": False,
        "delay": delay,
        **{"task": None, "pipeline": None, "node": None, **links},
    }
    record = server.store.add_numbered("execution", record)
    server.log(record["id"]).append("Execution created")
    server.wake.set()
    return record


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _no_output_timeout(step: Step, fields: dict[str, Any]) -> float:
    sent = (fields.get("runtime_config") or {}).get("no_output_timeout")
    return seconds(_first(sent, step.no_output_timeout)) or 8 * 3600.0


def _object(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(name, "Expected an object.")
    return value


def _inputs(
    server: Server, project: str, step: Step, sent: dict[str, Any], values: dict[str, Any]
) -> list[dict[str, Any]]:
    unknown = sorted(set(sent) - set(step.inputs))
    if unknown:
        raise invalid("inputs", f"Unknown inputs: {', '.join(unknown)}")
    chosen = []
    for name, definition in step.inputs.items():
        urls = sent.get(name, definition.default if name not in sent else None)
        if name in sent and sent[name] is None:
            raise invalid("inputs", f"{name}: This field may not be null.", "null")
        urls = [urls] if isinstance(urls, str) else list(urls or [])
        if not urls and not definition.optional and name not in sent:
            raise invalid("inputs", f"{name}: This input is required.", "required")
        for key, value in values.items():
            urls = [url.replace(f"{{parameter:{key}}}", str(value)) for url in urls]
        chosen.append({"name": name, "urls": [resolve_url(server, project, url) for url in urls]})
    return chosen


def _variables(project: Record, step: Step, fields: dict[str, Any]) -> dict[str, str]:
    variables: dict[str, Any] = {}
    if fields.get("inherit_environment_variables", True):
        variables |= {name: one["value"] for name, one in project.get("variables", {}).items()}
    variables |= {name: one.default for name, one in step.environment_variables.items()}
    variables |= fields.get("environment_variables") or {}
    return {name: str(value) for name, value in variables.items() if value is not None}


def find(call: Call, kind: str, identity: str) -> Record:
    """A record by its id, ``PROJECT:COUNTER`` or ``PROJECT:latest``.

    Raises:
        ApiError: 404.
    """
    project, colon, counter = identity.partition(":")
    if not colon:
        record = call.server.store.get(kind, identity)
    else:
        rows = call.server.store.find(kind, project=project.lower(), deleted=False)
        rows = rows[-1:] if counter == "latest" else [row for row in rows if str(row["counter"]) == counter]
        record = rows[0] if rows else None
    if record is None or record.get("deleted"):
        raise not_found()
    return record


def duration(record: Record) -> float | None:
    if not record["start_time"]:
        return None
    return (parse_time(record["end_time"] or now()) - parse_time(record["start_time"])).total_seconds()


def answer(call: Call, record: Record) -> dict[str, Any]:
    server, identity = call.server, record["id"]
    project = server.store.get("project", record["project"]) or {"id": record["project"], "name": "(deleted)"}
    url, display = (
        f"{call.host}/api/v0/executions/{identity}/",
        f"{call.host}/p/{server.user['username']}/{project['name']}",
    )
    hidden = ("project", "pieces", "delay", "node", "start_time", "deleting", "no_output_timeout")
    shown = {name: value for name, value in record.items() if name not in hidden}
    outputs = server.store.find("datum", output_execution=identity)
    shown |= {
        "url": url,
        "urls": {
            "display": f"{display}/execution/{identity}/",
            "stop": url + "stop/",
            "copy": f"{display}/executions/create/?from={identity}",
        },
        "project": {"id": project["id"], "name": project["name"]},
        "commit": {"identifier": record["commit"]},
        "environment": server.environment(record["environment"]),
        "mtime": record["end_time"] or record["start_time"] or record["ctime"],
        "duration": duration(record),
        "creator_id": 1,
        "creator_name": server.user["username"],
        "interpolated_command": "\n".join(record["pieces"]),
        "is_pinned": False,
        "executor_identity": "",
        "price": 0.0,
        "n_outputs": len(outputs),
        "n_alerts": 0,
        "n_comments": 0,
    }
    for kind in ("task", "pipeline"):
        parent = server.store.get(kind, record[kind]) if record[kind] else None
        shown[f"{kind}_counter"] = parent["counter"] if parent else None
    excluded = call.names("exclude")
    if "outputs" not in excluded:
        shown["outputs"] = [{name: one[name] for name in ("id", "name", "size", "purged")} for one in outputs]
    if "metadata" not in excluded:
        shown["metadata"] = server.log(identity).metadata()
    if "events" not in excluded:
        shown["events"] = server.log(identity).events()[-100:]
    shown["cumulative_metadata"] = server.log(identity).cumulative()
    return {name: value for name, value in shown.items() if name not in excluded}


def row_answer(call: Call, record: Record) -> dict[str, Any]:
    shown = answer(call, record)
    for name in ("metadata", "events", "outputs", "inputs", "interpolated_command"):
        shown.pop(name, None)
    return shown


@route("POST", "/executions/")
def post(call: Call) -> Created:
    return Created(answer(call, create(call.server, call.body(), call.queue_delay)))


@route("GET", "/executions/")
def listing(call: Call) -> dict[str, Any]:
    rows = wanted(call, call.server.store.find("execution"), "project", "counter", "task", "pipeline", "step")
    statuses = set(call.query.getlist("status"))
    if "incomplete" in statuses:
        statuses.update(INCOMPLETE)
    if statuses:
        rows = [row for row in rows if row["status"] in statuses]
    if call.query.get("creator", "1") not in ("1", "<none>"):
        rows = []
    return page(call, ordered(call, rows, "-ctime"), lambda row: row_answer(call, row))


@route("GET", "/executions/{identity}/")
def read(call: Call, identity: str) -> dict[str, Any]:
    return answer(call, find(call, "execution", identity))


@route("DELETE", "/executions/{identity}/")
def delete(call: Call, identity: str) -> None:
    record = find(call, "execution", identity)
    if record["status"] not in FINAL:
        request_stop(call.server, record)
    call.server.store.update("execution", record["id"], deleted=True)


def request_stop(server: Server, record: Record) -> None:
    """Ask for the end; one that waits ends at once."""
    with server.store.lock:
        record = server.store.get("execution", record["id"]) or record
        if record["status"] in ("created", "queued"):
            server.store.update("execution", record["id"], status="stopped", end_time=now())
        elif record["status"] == "started":
            server.store.update("execution", record["id"], status="stopping")
        else:
            return
    server.log(record["id"]).append("Stop requested")
    server.wake.set()


@route("POST", "/executions/{identity}/stop/")
def stop(call: Call, identity: str) -> dict[str, Any]:
    record = find(call, "execution", identity)
    if record["status"] in FINAL:
        raise invalid("non_field_errors", f"The execution is {record['status']} already.", "finished")
    request_stop(call.server, record)
    return {"message": "Stop requested."}


@route("POST", "/executions/{identity}/tags/")
def add_tags(call: Call, identity: str) -> dict[str, Any]:
    tags = call.body().get("tags")
    if not isinstance(tags, list):
        raise invalid("tags", "Expected a list.")
    with call.server.store.lock:
        record = find(call, "execution", identity)
        merged = list(dict.fromkeys([*record["tags"], *tags]))
        call.server.store.update("execution", record["id"], tags=merged)
    return {"tags": merged}


@route("GET", "/executions/{identity}/events/")
def events(call: Call, identity: str) -> dict[str, Any]:
    record = find(call, "execution", identity)
    found = call.server.log(record["id"]).events()
    total, window = len(found), call.server.settings.running_log
    if window and record["status"] not in FINAL:
        found = found[-window:]
    limit = call.number("limit", 2000)
    found = found[-limit:] if limit else found
    return {"total": total, "limit": limit, "truncated": len(found) < total, "events": found}


@route("GET", "/executions/{identity}/status-events/")
def status_events(call: Call, identity: str) -> dict[str, Any]:
    found = call.server.log(find(call, "execution", identity)["id"]).events()
    found = [event for event in found if event["stream"] == "status"]
    return {"total": len(found), "status_events": found[: call.number("limit", 100) or None]}


@route("GET", "/executions/{identity}/metadata/")
def metadata(call: Call, identity: str) -> list[dict[str, Any]]:
    return call.server.log(find(call, "execution", identity)["id"]).metadata()
