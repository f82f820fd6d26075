"""A stage as an execution: one of other code does not block its key, and whenever a person stops it, it stops."""

import json

import pytest

from deeplab.stage.manifest import Manifest, Output, products_digest, sha256_of
from tasks.call import StageCall
from tasks.sources import Address
from tasks.store import Store
from tasks.valohai.copy import OtherCode
from tasks.valohai.execution import key_tag
from tasks.valohai.layout import LAYOUTS
from tasks.valohai.runner import Listeners, Options, Runner

COMMIT = "~1"


@pytest.fixture
def call():
    inputs = {name: Address(f"datum://{name}", name) for name in LAYOUTS["evaluate"].inputs}
    return StageCall("evaluate", {}, {"dataset": "sample"}, inputs)


@pytest.fixture
def entry(call, tmp_path):
    entry = Store.open(str(tmp_path / "store")).entry(call.identity())
    entry.prepare()
    return entry


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"miou": 0.5}))
    return path


def leave(service, entry, results, *, code_version):
    """Have the service show the outputs of an evaluation, and those alone."""
    service.data.clear()
    size, mtime = results.stat().st_size, results.stat().st_mtime_ns
    output = Output(path="results.json", kind="product", size=size, sha256=sha256_of(results), mtime_ns=mtime)
    identity = entry.identity
    manifest = Manifest(
        stage="evaluate",
        code_version=code_version,
        parameters=identity.parameters,
        inputs=identity.inputs,
        outputs=(output,),
        digest=products_digest([output]),
    )
    service.output("results.json", results.read_bytes())
    service.output("manifest.json", manifest.model_dump_json().encode())


@pytest.fixture
def service(service):
    service.commits.append({"identifier": COMMIT, "adhoc": True})
    return service


def execute(service, entry, results, *, code_version):
    """Have new executions run to their end, with code of some version."""
    create = service.create

    def completed(payload):
        status, row = create(payload)
        row["script"] = ["started", "complete"]
        leave(service, entry, results, code_version=code_version)
        return status, row

    service.create = completed


def listeners(notices, submitted=lambda *_: None):
    def wanted(error):
        return isinstance(error, KeyboardInterrupt)

    return Listeners(lambda file: lambda stream, text: None, submitted, notices.append, wanted)


def test_a_stage_runs_again_after_other_code(client, service, call, entry, results):
    step = LAYOUTS["evaluate"].step
    other = service.add("complete", [key_tag(entry.identity.key)], step=step)
    version = entry.identity.code_version
    leave(service, entry, results, code_version=version + 1)
    execute(service, entry, results, code_version=version)
    notices: list[str] = []
    copy = Runner(client, Options(commit=COMMIT)).run(call, entry, listeners(notices))
    assert copy.note.execution == service.executions[1]["id"] != other["id"]
    assert len(service.executions) == 2
    assert any("#1 ran other code than this" in text and text.endswith("evaluate runs again") for text in notices)


def test_new_execution_of_other_code_is_an_error(client, service, call, entry, results):
    """Somebody named a commit; running it again would do the same."""
    execute(service, entry, results, code_version=entry.identity.code_version + 1)
    with pytest.raises(OtherCode, match=r"is of another version of the stage.*leave --valohai.commit empty"):
        Runner(client, Options(commit=COMMIT)).run(call, entry, listeners([]))
    assert len(service.executions) == 1


def stop_at(*_):
    raise KeyboardInterrupt


def test_stop_while_the_answer_to_a_submission_is_awaited(client, service, call, entry, monkeypatch):
    create = client.create

    def interrupted(*arguments):
        create(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "create", interrupted)
    notices: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        Runner(client, Options(commit=COMMIT)).run(call, entry, listeners(notices))
    assert [row["status"] for row in service.executions] == ["stopped"]
    assert "is stopped" in notices[-1]


def test_stop_before_an_execution_is_followed(client, service, call, entry):
    with pytest.raises(KeyboardInterrupt):
        Runner(client, Options(commit=COMMIT)).run(call, entry, listeners([], submitted=stop_at))
    assert [row["status"] for row in service.executions] == ["stopped"]


def test_service_that_takes_no_stop_is_told_and_the_reason_kept(client, service, call, entry):
    service.faults = [("POST", "/stop/$", 403)]
    notices: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        Runner(client, Options(commit=COMMIT)).run(call, entry, listeners(notices, submitted=stop_at))
    assert "may still run" in notices[-1]


def test_a_deleted_execution_has_no_sibling_and_breaks_nothing(client, service, call, entry, results):
    execute(service, entry, results, code_version=entry.identity.code_version)
    copy = Runner(client, Options(commit=COMMIT)).run(call, entry, listeners([]))
    service.executions.clear()
    assert copy.sibling(entry) is None
