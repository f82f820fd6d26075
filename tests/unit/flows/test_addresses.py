"""Addresses in place of files, where the stage that reads them runs here."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.client.orchestration import get_client

from deeplab.errors import ConfigError, DataError
from flows.batch_inference import InferenceParameters, batch_inference_flow
from flows.evaluate_checkpoint import EvaluationParameters
from tasks.errors import StoreError
from tasks.places import open_store
from tasks.runner import local

DATUM = "datum://0197a3b2-0000-4000-8000-000000000001"
pytestmark = pytest.mark.usefixtures("api")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *arguments):
        """Nothing."""


@pytest.fixture
def served(tmp_path):
    """A folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_address_is_fetched_once_and_then_read_here(served, tmp_path, calls):
    folder, address = served
    (folder / "graph.pb").write_text("graph")
    (tmp_path / "photo.jpg").write_text("photo")
    parameters = InferenceParameters(
        model=f"{address}/graph.pb", images=str(tmp_path / "photo.jpg"), store=str(tmp_path / "store")
    )
    batch_inference_flow(parameters)
    assert calls() == ["fetch", "predict"]
    batch_inference_flow(parameters)
    assert calls() == []


def test_what_a_training_has_published_comes_before_the_parameters(tmp_path, calls):
    (tmp_path / "photo.jpg").write_text("photo")
    (tmp_path / "graph.pb").write_text("graph")
    parameters = InferenceParameters(
        model=str(tmp_path / "nothing"), images=str(tmp_path / "photo.jpg"), store=str(tmp_path / "store")
    )
    state = batch_inference_flow(parameters, model=str(tmp_path / "graph.pb"), return_state=True)
    assert state.result().stage == "predict"
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(state.state_details.flow_run_id).name == "photo.jpg with graph.pb"
    with pytest.raises(DataError, match="nothing: no such file"):
        batch_inference_flow(parameters)


def test_photos_that_change_while_they_are_segmented_are_not_taken_for_the_old_ones(tmp_path, calls, monkeypatch):
    photo, ran = tmp_path / "photo.jpg", local.run
    photo.write_text("photo")
    (tmp_path / "graph.pb").write_text("graph")

    def run(*arguments):
        status = ran(*arguments)
        photo.write_text("another")
        return status

    parameters = InferenceParameters(model=str(tmp_path / "graph.pb"), images=str(photo), store=str(tmp_path / "store"))
    with monkeypatch.context() as patched:
        patched.setattr(local, "run", run)
        with pytest.raises(DataError, match=r"--images=.*photo.jpg has changed since this run looked at it"):
            batch_inference_flow(parameters)
    assert calls() == ["predict"]
    photo.write_text("photo")
    assert not batch_inference_flow(parameters).reused


def test_the_address_of_a_photo_is_fetched(served, tmp_path, calls):
    folder, address = served
    (folder / "photo.jpg").write_text("photo")
    (tmp_path / "graph.pb").write_text("graph")
    store = str(tmp_path / "store")
    batch_inference_flow(
        InferenceParameters(model=str(tmp_path / "graph.pb"), images=f"{address}/photo.jpg", store=store)
    )
    assert calls() == ["fetch", "predict"]


def test_an_address_that_only_valohai_opens_is_refused_here(tmp_path, calls):
    (tmp_path / "photo.jpg").write_text("photo")
    values = {"images": str(tmp_path / "photo.jpg"), "store": str(tmp_path / "store")}
    with pytest.raises(StoreError, match=f"{DATUM}: only an execution can read it"):
        batch_inference_flow(InferenceParameters(model=DATUM, **values))
    with pytest.raises(ConfigError, match=r"datum://best: an alias, .* name the file itself, datum://ID"):
        batch_inference_flow(InferenceParameters(model="datum://best", **values))
    assert calls() == []


def test_a_signature_is_in_no_name_and_in_no_address_of_a_store():
    signed = "https://host/a/graph.pb?sv=1&sig=hidden"
    assert InferenceParameters(model=signed, images="photos").title() == "photos with graph.pb"
    assert InferenceParameters(model="graph.pb", images=".").title() == ". with graph.pb"
    assert EvaluationParameters(checkpoint=signed, records=signed).title == "graph.pb on graph.pb"
    with pytest.raises(StoreError, match=r"--store=az://c/store: its address is shown") as caught:
        open_store("az://c/store?sv=1&sig=hidden")
    assert "hidden" not in str(caught.value)
