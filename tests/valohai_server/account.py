"""Users, projects and environments."""

from typing import Any

from tests.valohai_server.answers import ApiError, Call, Created, invalid, not_found, ordered, page
from tests.valohai_server.routing import route
from tests.valohai_server.store import Record

STATUSES = ("created", "queued", "started", "stopping", "stopping_hard", "stopped", "error", "complete")


@route("POST", "/get-token/")
def get_token(call: Call) -> dict[str, Any]:
    fields, settings = call.body(), call.server.settings
    if (fields.get("username"), fields.get("password")) != (settings.username, settings.password):
        raise ApiError(400, {"non_field_errors": ["Unable to log in with provided credentials."]})
    return {"token": call.server.user["token"]}


def creator(call: Call) -> dict[str, Any]:
    return {"id": 1, "username": call.server.user["username"]}


@route("GET", "/users/me/")
def me(call: Call) -> dict[str, Any]:
    return {**creator(call), "email": "vh@example.com", "first_name": "", "last_name": ""}


@route("GET", "/server/")
def version(call: Call) -> dict[str, Any]:
    return {"flavor": "local", "version": "1"}


def project_answer(call: Call, project: Record) -> dict[str, Any]:
    executions = call.server.store.find("execution", project=project["id"])
    counts = {f"{status}_count": sum(one["status"] == status for one in executions) for status in STATUSES}
    variables = {
        name: {"value": None if one["secret"] else one["value"], "secret": one["secret"]}
        for name, one in project.get("variables", {}).items()
    }
    user, name = call.server.user["username"], project["name"]
    return {
        "id": project["id"],
        "name": name,
        "description": project["description"],
        "owner": creator(call),
        "ctime": project["ctime"],
        "mtime": project["ctime"],
        "read_only": False,
        "yaml_path": project.get("yaml_path", "valohai.yaml"),
        "tags": [],
        "url": f"{call.host}/api/v0/projects/{project['id']}/",
        "urls": {
            "display": f"{call.host}/p/{user}/{name}/",
            "display_repository": f"{call.host}/p/{user}/{name}/settings/",
        },
        "execution_count": len(executions),
        "running_execution_count": counts["started_count"],
        "queued_execution_count": counts["queued_count"],
        "last_execution_ctime": executions[-1]["ctime"] if executions else None,
        "default_environment": None,
        "default_store": None,
        "upload_store_id": None,
        "repository": {"url": call.server.settings.git, "ref": "main"} if call.server.settings.git else None,
        "environment_variables": variables,
        "execution_summary": {"count": len(executions), **counts},
    }


def get_project(call: Call, identity: str) -> Record:
    found = call.server.store.get("project", identity)
    if found is None:
        raise not_found()
    return found


@route("GET", "/projects/")
def projects(call: Call) -> dict[str, Any]:
    rows = ordered(call, call.server.store.find("project"), "name")
    return page(call, rows, lambda row: project_answer(call, row))


@route("GET", "/projects/ownership_options/")
def ownership_options(call: Call) -> list[dict[str, Any]]:
    return []


@route("POST", "/projects/")
def create_project(call: Call) -> Created:
    fields = call.body()
    if not fields.get("name"):
        raise invalid("name", "This field is required.", "required")
    if call.server.store.find("project", name=fields["name"]):
        raise invalid("name", "A project of this name exists.", "unique")
    record = {"name": fields["name"], "description": fields.get("description", "")}
    return Created(project_answer(call, call.server.store.add("project", record)))


@route("GET", "/projects/{project}/")
def read_project(call: Call, project: str) -> dict[str, Any]:
    return project_answer(call, get_project(call, project))


@route("PUT", "/projects/{project}/")
def change_project(call: Call, project: str) -> dict[str, Any]:
    known = {name: value for name, value in call.body().items() if name in ("name", "description", "yaml_path")}
    identity = get_project(call, project)["id"]
    return project_answer(call, call.server.store.update("project", identity, **known))


@route("DELETE", "/projects/{project}/")
def delete_project(call: Call, project: str) -> None:
    call.server.store.delete("project", get_project(call, project)["id"])


@route("POST", "/projects/{project}/environment_variable/")
def set_variable(call: Call, project: str) -> dict[str, Any]:
    fields, record = call.body(), get_project(call, project)
    one = {"value": fields.get("value"), "secret": bool(fields.get("secret"))}
    variables = {**record.get("variables", {}), fields["name"]: one}
    call.server.store.update("project", record["id"], variables=variables)
    return {"ok": True}


@route("DELETE", "/projects/{project}/environment_variable/")
def delete_variable(call: Call, project: str) -> None:
    record = get_project(call, project)
    variables = record.get("variables", {})
    if variables.pop(call.body().get("name"), None) is None:
        raise not_found()
    call.server.store.update("project", record["id"], variables=variables)


@route("GET", "/environments/")
def environments(call: Call) -> dict[str, Any]:
    def render(row: Record) -> dict[str, Any]:
        unfinished = call.server.store.find(
            "execution", lambda one: one["status"] in ("created", "queued", "started"), environment=row["slug"]
        )
        fixed = {"description": "", "gpu_spec": "", "has_gpu": False, "per_hour_price_usd": "0.00", "owner": None}
        fixed |= {"per_user_queue_quota": 0, "type": "vm", "enabled": True, "spot": False, "supports_priority": True}
        return {**row, **fixed, "scale_min": 0, "scale_max": 1, "unfinished_job_count": len(unfinished)}

    return page(call, call.server.store.find("environment"), render)
