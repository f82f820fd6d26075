"""Tasks: groups of executions over variants of parameters."""

from typing import Any

from tests.valohai_server.account import STATUSES
from tests.valohai_server.answers import ApiError, Call, Created, invalid, ordered, page, wanted
from tests.valohai_server.commits import config_of, find_commit
from tests.valohai_server.conditions import holds
from tests.valohai_server.executions import FINAL, INCOMPLETE, find, request_stop
from tests.valohai_server.executions import create as create_execution
from tests.valohai_server.routing import route
from tests.valohai_server.server import Server
from tests.valohai_server.store import Record, now
from tests.valohai_server.variants import expand

ON_CHILD_ERROR = ("continue_and_complete", "continue_and_error", "stop_all_and_error")
SHARED_FIELDS = ("inputs", "environment", "environment_variables", "image", "command", "runtime_config")
SHARED_FIELDS += ("tags", "priority", "time_limit", "title")


def create(server: Server, fields: dict[str, Any], **links: Any) -> Record:
    """Check the fields of ``POST /tasks/`` and put the task to work.

    Raises:
        ApiError: 400 with the field that is wrong.
    """
    project = server.store.get("project", str(fields.get("project")))
    if project is None:
        raise invalid("project", "No such project.", "does_not_exist")
    commit = find_commit(server, project["id"], str(fields.get("commit")))
    if fields.get("step") not in config_of(commit).steps:
        raise invalid("step", f"No such step: {fields.get('step')}", "does_not_exist")
    on_error = str(fields.get("on_child_error") or "continue_and_complete").replace("-", "_")
    if on_error not in ON_CHILD_ERROR:
        raise invalid("on_child_error", f"{on_error}: give one of {', '.join(ON_CHILD_ERROR)}", "invalid_choice")
    kind = str(fields.get("type") or "grid_search").replace("-", "_")
    configuration = fields.get("configuration") or {}
    shared = {name: fields[name] for name in SHARED_FIELDS if fields.get(name) is not None}
    record = {
        "project": project["id"],
        "title": fields.get("title") or fields["step"],
        "status": "created",
        "status_detail": None,
        "type": kind,
        "tags": list(fields.get("tags") or []),
        "configuration": {**configuration, "maximum_queued_executions": fields.get("maximum_queued_executions")},
        "on_child_error": on_error,
        "stop_expression": fields.get("task_stop_expression") or fields.get("stop_expression") or "",
        "template": {"project": project["id"], "commit": commit["identifier"], "step": fields["step"], **shared},
        "variants": expand(kind, fields.get("parameters") or {}, configuration),
        "end_time": None,
        "deleted": False,
        **{"pipeline": None, "node": None, **links},
    }
    record = server.store.add_numbered("task", record)
    server.wake.set()
    return record


def children(server: Server, task: Record) -> list[Record]:
    return server.store.find("execution", task=task["id"])


def advance(server: Server) -> None:
    """Take every unfinished task one step on."""
    for task in server.store.find("task", lambda one: one["status"] not in FINAL):
        born = children(server, task)
        unfinished = [one for one in born if one["status"] not in FINAL]
        if task["status"] != "stopping":
            task, born = _start_children(server, task, born, len(unfinished))
            unfinished = [one for one in born if one["status"] not in FINAL]
            if _must_stop(server, task, born):
                server.store.update("task", task["id"], status="stopping", status_detail="stopped by a rule")
        elif unfinished:
            for one in unfinished:
                request_stop(server, one)
        if not unfinished and (task["status"] == "stopping" or len(born) == len(task["variants"])):
            server.store.update("task", task["id"], status=_final_status(task, born), end_time=now())
            server.wake.set()


def _start_children(server: Server, task: Record, born: list[Record], unfinished: int) -> tuple[Record, list[Record]]:
    limit = task["configuration"].get("maximum_queued_executions") or len(task["variants"])
    for values in task["variants"][len(born) : len(born) + max(limit - unfinished, 0)]:
        links = {name: task[name] for name in ("pipeline", "node")}
        try:
            one = create_execution(server, {**task["template"], "parameters": values}, task=task["id"], **links)
        except ApiError as error:
            return server.store.update("task", task["id"], status="error", status_detail=str(error.body)), born
        born.append(one)
    if task["status"] == "created":
        task = server.store.update("task", task["id"], status="started")
    return task, born


def _must_stop(server: Server, task: Record, born: list[Record]) -> bool:
    failed = any(one["status"] in ("error", "crashed") for one in born)
    if failed and task["on_child_error"] == "stop_all_and_error":
        return True
    expression = task["stop_expression"]
    return bool(expression) and any(holds(expression, server.log(one["id"]).cumulative()) for one in born)


def _final_status(task: Record, born: list[Record]) -> str:
    failed = any(one["status"] in ("error", "crashed") for one in born)
    if failed and task["on_child_error"] != "continue_and_complete":
        return "error"
    return "stopped" if task["status"] == "stopping" else "complete"


def answer(call: Call, task: Record) -> dict[str, Any]:
    born = children(call.server, task)
    counts = {f"{status}_count": sum(one["status"] == status for one in born) for status in STATUSES}
    url = f"{call.host}/api/v0/tasks/{task['id']}/"
    hidden = ("variants", "template", "node", "deleted")
    shown = {name: value for name, value in task.items() if name not in hidden}
    return {
        **shown,
        "n_executions": len(task["variants"]),
        "n_children": len(born),
        "status_summary": {"count": len(born), **counts},
        "url": url,
        "urls": {"display": f"{call.host}/p/task/{task['id']}/", "stop": url + "stop/"},
    }


@route("POST", "/tasks/")
def post(call: Call) -> Created:
    return Created(answer(call, create(call.server, call.body())))


@route("GET", "/tasks/")
def listing(call: Call) -> dict[str, Any]:
    rows = wanted(call, call.server.store.find("task"), "project", "counter")
    statuses = set(call.query.getlist("status"))
    if "incomplete" in statuses:
        statuses.update(INCOMPLETE)
    rows = [row for row in rows if not statuses or row["status"] in statuses]
    return page(call, ordered(call, rows, "-ctime"), lambda row: answer(call, row))


@route("GET", "/tasks/{identity}/")
def read(call: Call, identity: str) -> dict[str, Any]:
    return answer(call, find(call, "task", identity))


@route("GET", "/tasks/{identity}/execution_ids/")
def execution_ids(call: Call, identity: str) -> list[str]:
    return [one["id"] for one in children(call.server, find(call, "task", identity))]


@route("DELETE", "/tasks/{identity}/")
def delete(call: Call, identity: str) -> None:
    stop_task(call.server, find(call, "task", identity))
    call.server.store.update("task", find(call, "task", identity)["id"], deleted=True)


def stop_task(server: Server, task: Record) -> None:
    with server.store.lock:
        if (server.store.get("task", task["id"]) or task)["status"] not in FINAL:
            server.store.update("task", task["id"], status="stopping")
    server.wake.set()


@route("POST", "/tasks/{identity}/stop/")
def stop(call: Call, identity: str) -> dict[str, Any]:
    task = find(call, "task", identity)
    if task["status"] in FINAL:
        raise invalid("non_field_errors", f"The task is {task['status']} already.", "finished")
    stop_task(call.server, task)
    return {"message": "Stop requested."}
