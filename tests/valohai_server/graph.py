"""The working of pipelines: nodes start when their sources are done, edges carry files and values."""

from fnmatch import fnmatchcase
from typing import Any

from tests.valohai_server import tasks
from tests.valohai_server.answers import ApiError
from tests.valohai_server.conditions import holds
from tests.valohai_server.executions import FINAL, request_stop
from tests.valohai_server.executions import create as create_execution
from tests.valohai_server.server import Server
from tests.valohai_server.store import Record, now
from tests.valohai_server.variants import is_variant

RETRIES = 2
Node = dict[str, Any]


def advance(server: Server) -> None:
    """Take every unfinished pipeline one step on."""
    for pipeline in server.store.find("pipeline", lambda one: one["status"] not in FINAL):
        Graph(server, pipeline).advance()


class Graph:
    """One pipeline; only the scheduler's thread works on it."""

    def __init__(self, server: Server, pipeline: Record) -> None:
        self.server, self.pipeline = server, pipeline
        self.nodes: dict[str, Node] = {node["name"]: node for node in pipeline["nodes"]}
        self.stopping = pipeline["status"] == "stopping"
        self.fails = pipeline["fails"]
        self.said: list[dict[str, Any]] = []
        self.changed = pipeline["status"] == "created"

    def advance(self) -> None:
        for node in self.nodes.values():
            if node["status"] == "started":
                self._look(node)
        for node in self.nodes.values():
            if node["status"] == "created":
                self._try(node)
        status = self._status()
        if not self.changed and status == self.pipeline["status"]:
            return
        changes: dict[str, Any] = {"nodes": list(self.nodes.values()), "fails": self.fails}
        with self.server.store.lock:
            current = self.server.store.get("pipeline", self.pipeline["id"]) or self.pipeline
            if current["status"] == "stopping" and status not in FINAL:
                status = "stopping"
            changes |= {"status": status, "log": [*current["log"], *self.said]}
            if status in FINAL:
                changes["end_time"] = now()
            self.server.store.update("pipeline", self.pipeline["id"], **changes)
        self.server.wake.set()

    def _status(self) -> str:
        if not all(node["status"] in FINAL for node in self.nodes.values()):
            return "stopping" if self.stopping else "started"
        if self.fails:
            return "error"
        return "stopped" if self.stopping else "complete"

    def _say(self, node: Node, identifier: str, message: str) -> None:
        entry = {"ctime": now(), "identifier": identifier, "kind": "other", "message": message}
        node["log"].append(entry)
        self.said.append(entry)
        self.changed = True

    # What runs

    def _look(self, node: Node) -> None:
        kind = "task" if node["task"] else "execution"
        child = self.server.store.get(kind, node[kind])
        if child is None:
            return
        if child["status"] not in FINAL:
            if self.stopping and child["status"] != "stopping":
                (tasks.stop_task if kind == "task" else request_stop)(self.server, child)
            return
        node["status"] = "error" if child["status"] == "crashed" else child["status"]
        self._say(node, f"node_{node['status']}", f'Node "{node["name"]}" ended: {node["status"]}')
        if node["status"] == "error":
            self._failed(node)
        elif node["status"] == "complete":
            self._act(node, "node-complete")

    def _failed(self, node: Node) -> None:
        self._act(node, "node-error")
        if self.stopping:
            self.fails = True
        elif node["on_error"] == "retry" and node["attempt"] < RETRIES:
            node |= {"status": "created", "attempt": node["attempt"] + 1, "execution": None, "task": None}
            self._say(node, "node_retry", f'Node "{node["name"]}" is tried again')
        elif node["on_error"] != "continue":
            self.fails = True
            self.stopping = node["on_error"] != "stop-next"

    def _act(self, node: Node, moment: str) -> None:
        metadata: dict[str, Any] = {}
        for execution in self._executions(node):
            metadata |= self.server.log(execution["id"]).cumulative()
        for action in node["actions"]:
            when, conditions, then = (_listed(action.get(name)) for name in ("when", "if", "then"))
            if moment in when and all(holds(condition, metadata) for condition in conditions):
                self._say(node, "action", f"{moment}: {', '.join(then)}")
                self.stopping = self.stopping or "stop-pipeline" in then or "error-pipeline" in then
                self.fails = self.fails or "error-pipeline" in then

    # What waits

    def _try(self, node: Node) -> None:
        if self.stopping:
            node["status"] = "stopped"
            self.changed = True
            return
        incoming = [edge for edge in self.pipeline["edges"] if edge["target_node"] == node["name"]]
        sources = [self.nodes[edge["source_node"]] for edge in incoming]
        if any(not self._passes(source) and source["status"] in FINAL for source in sources):
            node["status"] = "stopped"
            self._say(node, "node_skipped", f'Node "{node["name"]}" is left out')
        elif all(self._passes(source) for source in sources):
            self._act(node, "node-starting")
            self._start(node, incoming)

    @staticmethod
    def _passes(source: Node) -> bool:
        return source["status"] == "complete" or (source["status"] == "error" and source["on_error"] == "continue")

    def _start(self, node: Node, incoming: list[dict[str, Any]]) -> None:
        if node["type"] == "deployment":
            node["status"] = "complete"
            self._say(node, "node_complete", f'Node "{node["name"]}": deployments are not made here')
            return
        try:
            fields = self._fields(node, incoming)
            self._create(node, fields)
        except ApiError as error:
            node["status"] = "error"
            self._say(node, "node_error", f'Node "{node["name"]}": {error.body}')
            node["on_error"] = "stop-all" if node["on_error"] == "retry" else node["on_error"]
            self._failed(node)

    def _create(self, node: Node, fields: dict[str, Any]) -> None:
        links = {"pipeline": self.pipeline["id"], "node": node["id"]}
        kind = "task" if node["type"] == "task" else "execution"
        born = self.server.store.find(kind, **links)  # by a server that was killed before it wrote so
        if kind == "execution":
            born = [one for one in born if one["task"] is None]
        if len(born) > node["attempt"]:
            child = born[-1]
        elif kind == "task":
            child = tasks.create(self.server, fields, **links)
        else:
            child = create_execution(self.server, fields, **links)
            if self.pipeline["reuse"] and (earlier := self._earlier(child)):
                request_stop(self.server, child)
                self.server.store.update("execution", child["id"], deleted=True)
                node |= {"execution": earlier["id"], "status": "complete"}
                self._say(node, "node_reused", f'Node "{node["name"]}" reuses execution #{earlier["counter"]}')
                return
        node |= {kind: child["id"], "status": "started"}
        self._say(node, "node_started", f'Node "{node["name"]}" started: {kind} #{child["counter"]}')

    def _earlier(self, execution: Record) -> Record | None:
        same = {name: execution[name] for name in ("project", "commit", "step", "parameters", "inputs", "pieces")}
        found = self.server.store.find("execution", status="complete", deleted=False, **same)
        return found[-1] if found else None

    def _fields(self, node: Node, incoming: list[dict[str, Any]]) -> dict[str, Any]:
        fields = {**node["template"], "project": self.pipeline["project"]}
        files: dict[str, list[str]] = {}
        for edge in incoming:
            kind, key = edge["target_type"], edge["target_key"]
            if kind == "dependency":
                continue
            values = self._carried(edge)
            if kind == "input":
                files.setdefault(key, []).extend(values)
            elif kind == "parameter":
                fields["parameters"] = {**fields["parameters"], key: _one(values, node["type"] == "task")}
            elif kind == "environment_variable" or kind == "environment-variable":
                known = fields.get("environment_variables") or {}
                fields["environment_variables"] = {**known, key: str(_one(values, False))}
        kept = fields["inputs"] if node["merge"] == "append" else {}
        added = {name: [*kept.get(name, []), *urls] for name, urls in files.items()}
        fields["inputs"] = {**fields["inputs"], **added}
        return fields

    def _carried(self, edge: dict[str, Any]) -> list[Any]:
        kind, key, values = edge["source_type"], edge["source_key"], []
        for execution in self._executions(self.nodes[edge["source_node"]]):
            if kind == "output":
                for datum in self.server.store.find("datum", output_execution=execution["id"], purged=False):
                    if any(fnmatchcase(name, key) for name in (datum["name"], datum["name"].rpartition("/")[2])):
                        values.append(f"datum://{datum['id']}")
            elif kind == "input":
                values += [url for one in execution["inputs"] if one["name"] == key for url in one["urls"]]
            elif kind == "parameter" and key in execution["parameters"]:
                values.append(execution["parameters"][key])
            elif kind == "metadata" and key in (seen := self.server.log(execution["id"]).cumulative()):
                values.append(seen[key])
        if not values:
            raise ApiError(400, f"{edge['source_node']}.{kind}.{key}: there is nothing to pass on")
        return values

    def _executions(self, node: Node) -> list[Record]:
        if node["task"]:
            return self.server.store.find("execution", task=node["task"])
        return self.server.store.find("execution", id=node["execution"]) if node["execution"] else []


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _one(values: list[Any], variant: bool) -> Any:
    value = values[0] if len(values) == 1 else values
    if variant and isinstance(value, list) and not is_variant(value):
        return {"style": "multiple", "rules": {"items": value}}
    return value
