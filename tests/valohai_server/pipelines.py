"""Pipelines: what the API says of them (their working is in graph.py)."""

from typing import Any

from valohai_yaml.pipelines.conversion import PipelineConverter

from tests.valohai_server.account import creator
from tests.valohai_server.answers import Call, Created, invalid, not_found, ordered, page, wanted
from tests.valohai_server.commits import config_of, find_commit
from tests.valohai_server.executions import FINAL, INCOMPLETE, find
from tests.valohai_server.routing import route
from tests.valohai_server.server import Server
from tests.valohai_server.store import Record, new_id, now

NODE_TYPES = ("execution", "task", "deployment", "mimic")
ON_ERROR = ("stop-all", "stop-next", "continue", "retry")


def create(server: Server, fields: dict[str, Any]) -> Record:
    """Check the fields of ``POST /pipelines/`` and put the pipeline to work.

    Raises:
        ApiError: 400 with the field that is wrong.
    """
    project = server.store.get("project", str(fields.get("project")))
    if project is None:
        raise invalid("project", "No such project.", "does_not_exist")
    if not fields.get("nodes"):
        raise invalid("nodes", "This field is required.", "required")
    nodes = {}
    for sent in fields["nodes"]:
        node = _node(server, project["id"], sent)
        if node["name"] in nodes:
            raise invalid("nodes", f"{node['name']}: two nodes of this name", "unique")
        nodes[node["name"]] = node
    edges = [_edge(edge, nodes) for edge in fields.get("edges") or []]
    _set_parameters(fields.get("parameters") or {}, nodes)
    record = {
        "project": project["id"],
        "title": fields.get("title") or fields.get("name") or "",
        "tags": list(fields.get("tags") or []),
        "status": "created",
        "reuse": bool(fields.get("reuse_executions")),
        "nodes": list(nodes.values()),
        "edges": edges,
        "log": [],
        "end_time": None,
        "deleted": False,
        "fails": False,
    }
    record = server.store.add_numbered("pipeline", record)
    server.wake.set()
    return record


def _snake(fields: dict[str, Any]) -> dict[str, Any]:
    """vh spells some keys with dashes, the web app with underscores."""
    return {name.replace("-", "_"): value for name, value in fields.items()}


def _node(server: Server, project: str, sent: dict[str, Any]) -> dict[str, Any]:
    fields = _snake(sent)
    kind, name = fields.get("type", "execution"), fields.get("name")
    if kind not in NODE_TYPES or not name:
        raise invalid("nodes", f"{name}: a node has a name and one of the types {', '.join(NODE_TYPES)}")
    on_error = fields.get("on_error") or "stop-all"
    if on_error not in ON_ERROR:
        raise invalid("nodes", f"{name}: on_error {on_error}: give one of {', '.join(ON_ERROR)}")
    node = {"id": new_id(), "name": name, "type": kind, "status": "created", "on_error": on_error, "attempt": 0}
    node |= {"merge": fields.get("edge_merge_mode") or "replace", "actions": fields.get("actions") or [], "log": []}
    node |= {"execution": None, "task": None, "template": {}}
    if kind == "mimic":
        return {**node, **_imitated(server, fields.get("source"))}
    if fields.get("reuse_execution_id"):
        if server.store.get("execution", fields["reuse_execution_id"]) is None:
            raise invalid("nodes", f"{name}: no execution {fields['reuse_execution_id']}", "does_not_exist")
        return {**node, "execution": fields["reuse_execution_id"], "status": "complete"}
    if kind != "deployment":
        node["template"] = _template(server, project, name, fields.get("template"))
    return node


def _imitated(server: Server, source: Any) -> dict[str, Any]:
    for pipeline in server.store.find("pipeline"):
        for node in pipeline["nodes"]:
            if node["id"] == source:
                return {name: node[name] for name in ("execution", "task", "status")}
    raise invalid("nodes", f"no node {source} to reuse", "does_not_exist")


def _template(server: Server, project: str, name: str, sent: Any) -> dict[str, Any]:
    if not isinstance(sent, dict):
        raise invalid("nodes", f"{name}: template: This field is required.", "required")
    template = _snake(sent)
    commit = find_commit(server, project, str(template.get("commit")))
    if template.get("step") not in config_of(commit).steps:
        raise invalid("nodes", f"{name}: no such step: {template.get('step')}", "does_not_exist")
    inputs = template.get("inputs") or {}
    if any(urls is None for urls in inputs.values()):
        raise invalid("nodes", f"{name}: inputs: This field may not be null.", "null")
    template["inputs"] = {key: [urls] if isinstance(urls, str) else list(urls) for key, urls in inputs.items()}
    template["parameters"] = dict(template.get("parameters") or {})
    if "stop_condition" in template:
        template["stop_expression"] = template.pop("stop_condition")
    return {**template, "title": template.get("title") or name}


def _edge(sent: dict[str, Any], nodes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    edge = {"id": new_id(), **_snake(sent)}
    for end in ("source_node", "target_node"):
        if edge.get(end) not in nodes:
            raise invalid("edges", f"{edge.get(end)}: no such node", "does_not_exist")
    return edge


def _set_parameters(parameters: dict[str, Any], nodes: dict[str, dict[str, Any]]) -> None:
    for name, parameter in parameters.items():
        expression = parameter.get("expression", "")
        if expression == "" or expression is None:
            continue
        for target in (parameter.get("config") or {}).get("targets") or []:
            node, _, rest = target.partition(".")
            kind, _, key = rest.partition(".")
            if node not in nodes or not kind.startswith("parameter"):
                raise invalid("parameters", f"{name}: target {target}: give NODE.parameter.NAME")
            nodes[node]["template"]["parameters"][key] = expression


def answer(call: Call, pipeline: Record) -> dict[str, Any]:
    project = call.server.store.get("project", pipeline["project"]) or {"id": pipeline["project"], "name": ""}
    ids = {node["name"]: node["id"] for node in pipeline["nodes"]}
    hidden = ("reuse", "deleted", "fails")
    return {
        **{name: value for name, value in pipeline.items() if name not in hidden},
        "creator": creator(call),
        "project": {"id": project["id"], "name": project["name"]},
        "url": f"{call.host}/api/v0/pipelines/{pipeline['id']}/",
        "urls": {"display": f"{call.host}/p/{project['name']}/pipeline/{pipeline['id']}/"},
        "nodes": [_node_answer(call, pipeline, node) for node in pipeline["nodes"]],
        "edges": [
            {**edge, "pipeline": pipeline["id"], **{end: ids[edge[end]] for end in ("source_node", "target_node")}}
            for edge in pipeline["edges"]
        ],
        "log": pipeline["log"][::-1],
    }


def _node_answer(call: Call, pipeline: Record, node: dict[str, Any]) -> dict[str, Any]:
    shown = {name: node[name] for name in ("id", "name", "type", "status")}
    shown |= {"pipeline": pipeline["id"], "log": node["log"][::-1]}
    for kind in ("execution", "task"):
        child = call.server.store.get(kind, node[kind]) if node[kind] else None
        shown[kind] = {name: child[name] for name in ("id", "counter", "status")} if child else None
    return shown


@route("POST", "/pipelines/")
def post(call: Call) -> Created:
    fields = call.body()
    return _from_yaml(call, fields, fields["blueprint"]) if "blueprint" in fields else _created(call, fields)


@route("POST", "/pipelines/create-from-template/")
def create_from_template(call: Call) -> Created:
    fields = call.body()
    return _from_yaml(call, fields, fields.get("name"))


def _from_yaml(call: Call, fields: dict[str, Any], name: Any) -> Created:
    commit = find_commit(call.server, str(fields.get("project")), str(fields.get("commit")))
    config = config_of(commit)
    if name not in config.pipelines:
        raise invalid("name", f"No such pipeline: {name}", "does_not_exist")
    converter = PipelineConverter(config=config, commit_identifier=commit["identifier"])
    converted = converter.convert_pipeline(config.pipelines[name])
    return _created(call, {**fields, "title": fields.get("title") or name, **converted})


def _created(call: Call, fields: dict[str, Any]) -> Created:
    return Created(answer(call, create(call.server, fields)))


@route("GET", "/pipelines/")
def listing(call: Call) -> dict[str, Any]:
    rows = wanted(call, call.server.store.find("pipeline"), "project", "counter")
    statuses = set(call.query.getlist("status"))
    if "incomplete" in statuses:
        statuses.update(INCOMPLETE)
    rows = [row for row in rows if not statuses or row["status"] in statuses]
    return page(call, ordered(call, rows, "-ctime"), lambda row: answer(call, row))


@route("GET", "/pipelines/{identity}/")
def read(call: Call, identity: str) -> dict[str, Any]:
    return answer(call, find(call, "pipeline", identity))


@route("DELETE", "/pipelines/{identity}/")
def delete(call: Call, identity: str) -> None:
    pipeline = find(call, "pipeline", identity)
    _request_stop(call.server, pipeline)
    call.server.store.update("pipeline", pipeline["id"], deleted=True)


@route("POST", "/pipelines/{identity}/stop/")
def stop(call: Call, identity: str) -> dict[str, Any]:
    pipeline = find(call, "pipeline", identity)
    if pipeline["status"] in FINAL:
        raise invalid("non_field_errors", f"The pipeline is {pipeline['status']} already.", "finished")
    _request_stop(call.server, pipeline)
    return {"message": "Stop requested."}


def _request_stop(server: Server, pipeline: Record) -> None:
    with server.store.lock:
        current = server.store.get("pipeline", pipeline["id"])
        if current is None:
            raise not_found()
        if current["status"] not in FINAL:
            entry = {"ctime": now(), "identifier": "stop", "kind": "other", "message": "Stop requested"}
            server.store.update("pipeline", pipeline["id"], status="stopping", log=[*current["log"], entry])
    server.wake.set()
