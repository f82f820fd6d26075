"""An execution of other code under a stage's key: it is not taken for the stage's, and does not block the key."""

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


def listeners(notices):
    return Listeners(lambda file: lambda stream, text: None, lambda *_: None, notices.append, lambda error: False)


def test_the_stage_runs_again(client, service, call, entry, results):
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
