"""The training flow with fake stages: order, reuse, repair, failure, what it shows and what it leaves."""

import os
import re
from html.parser import HTMLParser

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import FlowRunSort

from deeplab.config import validate
from deeplab.errors import ConfigError, FetchError
from flows.batch_inference import InferenceParameters, batch_inference_flow
from flows.evaluate_checkpoint import EvaluationParameters, evaluate_checkpoint_flow
from flows.parameters import TrainFlowParameters
from flows.sweep import sweep_flow
from flows.sweep_parameters import SweepParameters
from flows.train import main, summary, train_flow
from flows.trial import trial_flow
from tasks.azure_storage import AzureStorage
from tasks.errors import StageFailed, StoreError
from tasks.inventory import take
from tasks.store import Store
from tasks.store_command import main as store_command
from tests.unit.tasks.stored import aged

STAGES = ["sample", "fetch", "convert", "train", "archive", "evaluate", "export", "predict"]

pytestmark = [
    pytest.mark.usefixtures("api"),
]


@pytest.fixture
def run(tmp_path, calls):
    def start(steps=4, **sections):
        values = {"preset": "demo", "store": str(tmp_path / "store"), "train": {"training_number_of_steps": steps}}
        return train_flow(validate(TrainFlowParameters, {**values, **sections}))

    return start


def folder(run_outcome, stage, tmp_path):
    (found,) = [path for path in (tmp_path / "store" / stage).iterdir() if path.is_dir()]
    return found


def test_second_run_reuses_every_stage(run, calls):
    first = run()
    assert calls() == STAGES
    second = run()
    assert calls() == []
    assert second.graph.reused and not first.graph.reused
    assert second.graph.digest == first.graph.digest
    assert "mean IoU      50.00 % on 2 images" in summary(second)


@pytest.mark.parametrize(
    ("stage", "file", "again"),
    [
        ("convert", "tfrecords.tar.gz", ["convert"]),
        ("train", "model.ckpt-4.index", ["train"]),
        ("export", "frozen_inference_graph.pb", ["export"]),
        ("evaluate", "results.json", ["evaluate"]),
    ],
)
def test_missing_file_repeats_its_stage_and_no_other(run, calls, tmp_path, caplog, stage, file, again):
    outcome = run()
    calls()
    (folder(outcome, stage, tmp_path) / file).unlink()
    run()
    assert calls() == again
    assert f"{stage} runs because {file} is missing" in caplog.text


def test_changed_values_repeat_what_they_decide(run, calls):
    run()
    calls()
    run(evaluate={"eval_crop_size": "321,321"})
    assert calls() == ["evaluate"]
    run(convert={"num_threads": 1}, predict={"max_images": 3})
    assert calls() == ["predict"]


def test_more_steps_go_on_from_the_shorter_training(run, calls, tmp_path, caplog):
    run(steps=4)
    calls()
    longer = run(steps=6)
    assert calls() == ["train", "archive", "evaluate", "export", "predict"]
    assert "train goes on from step 4" in caplog.text
    log = (longer.checkpoints.entry.folder.parents[1] / "train").glob("*.log")
    assert sorted(re.findall(r"starting at step (\d)", "".join(path.read_text() for path in log))) == ["0", "4"]
    run(steps=3)
    assert calls()[0] == "train"
    assert "goes on from step" not in caplog.text.partition("training_number_of_steps=3")[2]


def test_log_in_the_store_holds_every_line_once(run, tmp_path):
    outcome = run()
    log = folder(outcome, "train", tmp_path).with_suffix(".log").read_text().splitlines()
    assert [line for line in log if '"loss"' in line] == [
        f'{{"step": {step}, "loss": {3.0 / step}, "learning_rate": 0.1}}' for step in range(1, 5)
    ]
    assert len([line for line in log if "train starts" in line]) == 1


def test_failed_stage_ends_the_run_with_its_reason_and_the_next_run_goes_on(run, calls, monkeypatch, caplog):
    monkeypatch.setenv("FAKE_STAGE_FAILS", "evaluate")
    with pytest.raises(StageFailed, match=r"evaluate: ran out of luck; try again \(log: "):
        run()
    assert calls()[-1] == "evaluate"
    assert "Traceback" not in caplog.text
    monkeypatch.delenv("FAKE_STAGE_FAILS")
    run()
    assert calls() == ["evaluate", "export", "predict"]


def test_checkpoint_changed_in_secret_is_found_before_export(run, calls, tmp_path):
    outcome = run()
    calls()
    checkpoint = folder(outcome, "train", tmp_path) / "model.ckpt-4.index"
    stat = checkpoint.stat()
    checkpoint.write_text(checkpoint.read_text()[::-1])
    os.utime(checkpoint, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(StoreError, match=r"model\.ckpt-4\.index has another content"):
        run(export={"output_stride": 32})
    run(export={"output_stride": 32})
    assert calls() == ["train", "export", "predict"]


def test_a_stage_says_what_is_different_this_time(run, calls, caplog):
    run(steps=4)
    assert "train runs because it was not made yet" in caplog.text
    run(steps=6)
    assert "train runs because train.training_number_of_steps is 6 and was 4 (compared with " in caplog.text
    assert "archive runs because its input train_logdir is new (compared with " in caplog.text


def test_what_verify_finds_is_made_again_and_nothing_else(run, calls, tmp_path, caplog, capsys):
    outcome = run()
    calls()
    for stage, name in (("convert", "train-00000-of-00001.tfrecord"), ("export", "frozen_inference_graph.pb")):
        path = folder(outcome, stage, tmp_path) / name
        stat = path.stat()
        path.write_text(path.read_text()[::-1])
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    run()
    assert calls() == [], "sizes and times tell nothing"
    assert store_command(["verify", f"--store={tmp_path / 'store'}"]) == 1
    run()
    assert calls() == ["convert", "export"]
    assert "convert runs because train-00000-of-00001.tfrecord was changed" in caplog.text
    assert store_command(["verify", f"--store={tmp_path / 'store'}"]) == 0


def test_clearing_up_keeps_what_the_last_run_used(run, calls, tmp_path, capsys):
    run(steps=4)
    run(steps=6)
    store = Store.open(str(tmp_path / "store"))
    for item in take(store, None).items:
        aged(item.entry, 50)
    run(steps=4)
    calls()
    assert store_command(["gc", "--unused_for=40", "--yes", f"--store={store.root}"]) == 0
    assert capsys.readouterr().out.count("not used for 50 days") == 7
    run(steps=4)
    assert calls() == []
    run(steps=6)
    assert calls() == ["train", "archive", "evaluate", "export", "predict"]


def test_run_is_named_after_data_set_network_and_place_and_keeps_what_was_given(run):
    run()
    with get_client(sync_client=True) as client:
        newest = max(client.read_flow_runs(), key=lambda flow_run: flow_run.created)
    assert newest.name == "sample mobilenet_v2, local"
    assert newest.parameters["parameters"]["train"] == {"training_number_of_steps": 4}


def test_artifacts_are_there_and_small(run):
    run(steps=5)
    with get_client(sync_client=True) as client:
        # The API gives no more than 200 at once.
        (last,) = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[last.id]))
        found = {artifact.key: artifact for artifact in client.read_artifacts(flow_run_filter=of_run)}
    shown = {"train-progress", "train-loss", "evaluate-iou", "evaluate-sheet", "predict-overlays", "run-summary"}
    assert set(found) == shown
    assert found["run-summary"].task_run_id is None, "it stands with the run itself"
    assert found["train-loss"].description == "Loss 0.6 at step 5"
    assert found["evaluate-iou"].description.startswith("mean IoU 50.00 % on 2 images")
    assert found["train-progress"].data == 100
    assert "data:image/svg+xml;base64," in found["train-loss"].data
    assert "data:image/jpeg;base64," in found["evaluate-sheet"].data
    assert all(len(str(artifact.data)) < 150_000 for artifact in found.values())


def test_azure_credentials_come_from_a_block_and_reach_the_stages(run, calls, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="Prefect block 'nowhere': there is none of type 'azure-storage'"):
        run(azure_storage="nowhere")
    assert calls() == []
    AzureStorage(sign_in="sas_token", sas_token="sv=1&sig=hidden").save("lab")
    seen = []
    monkeypatch.setattr("flows.train._run", lambda *_: seen.append(os.environ.get("AZURE_STORAGE_SAS_TOKEN")) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(azure_storage="lab")
    assert seen == ["sv=1&sig=hidden"] and "AZURE_STORAGE_SAS_TOKEN" not in os.environ


@pytest.mark.parametrize(
    ("flow", "form", "values"),
    [
        (trial_flow, TrainFlowParameters, {"preset": "demo"}),
        (batch_inference_flow, InferenceParameters, {"model": "graph.pb", "images": "photos"}),
        (evaluate_checkpoint_flow, EvaluationParameters, {"checkpoint": "run", "records": "records"}),
    ],
)
def test_every_flow_uses_the_block(tmp_path, flow, form, values):
    with pytest.raises(ConfigError, match="Prefect block 'nowhere': there is none"):
        flow(form(store=str(tmp_path), azure_storage="nowhere", **values))


def test_sweeps_use_the_block_too(tmp_path):
    base = {"preset": "demo", "store": str(tmp_path), "azure_storage": "nowhere"}
    with pytest.raises(ConfigError, match="Prefect block 'nowhere': there is none"):
        sweep_flow(SweepParameters(base=base, vary={"train.seed": [1, 2]}))


def test_a_network_is_published_with_its_address_and_score(run, monkeypatch):
    events = []
    monkeypatch.setattr("tasks.publication.emit_event", lambda event, **content: events.append((event, content)))
    outcome = run()
    ((event, content),) = events
    assert event == "deeplab.model.published"
    assert content["resource"]["prefect.resource.id"] == f"deeplab.graph.{outcome.graph.digest}"
    graph = str(outcome.graph.here().resolve())
    expected = {"title": "sample mobilenet_v2", "graph": graph, "address": None, "miou": 0.5, "images": 2, "new": True}
    assert content["payload"] == expected
    run()
    assert events[1][1]["payload"] == {**expected, "new": False}


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("href", "src")]
        if tag not in ("meta", "img", "br", "line", "polyline", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


def test_report_is_one_file_that_needs_no_other(run):
    outcome = run()
    text = outcome.report.read_text(encoding="utf-8")
    page = Links()
    page.feed(text)
    assert page.open == []
    assert page.found and all(link.startswith("data:") for link in page.found)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    for part in ("50.00 %", "<svg", "photo &lt;1&gt;", outcome.graph.key, "training_number_of_steps", "rgb(", "ran"):
        assert part in text, part
    assert len(text) < 2_000_000


def test_report_of_equal_runs_is_the_same_file(run):
    run()
    second, third = run(), run()
    assert second.report == third.report
    assert ">reused<" in second.report.read_text()


def test_source_given_is_fetched_instead_of_drawn(run, calls, tmp_path):
    (tmp_path / "pictures.zip").write_text("zip")
    run(fetch={"source": str(tmp_path / "pictures.zip")})
    assert calls() == STAGES[1:]


@pytest.mark.parametrize(("query", "told"), [("sv=2024&sig=secret", True), ("snapshot=2024", False)])
def test_credentials_in_an_address_are_warned_of_and_not_shown(run, caplog, query, told):
    with pytest.raises(FetchError):
        run(fetch={"source": f"http://127.0.0.1:9/photos/pictures.zip?{query}"})
    assert ("fetch.source holds a signature or a password" in caplog.text) == told
    assert "secret" not in caplog.text


def test_main_ends_with_one_line_and_a_status(capsys, monkeypatch, calls, tmp_path):
    words = ["--preset=demo", f"--store={tmp_path / 'store'}", "--train.training_number_of_steps=2"]
    assert main([*words, "--train.train_batch=3"]) == 2
    assert (
        capsys.readouterr().err == "error: unknown flag --train.train_batch; did you mean --train.train_batch_size?\n"
    )
    assert main([*words, "--store=nowhere://container/store"]) == 1
    assert "error: --store=nowhere://container/store: Protocol not known" in capsys.readouterr().err
    monkeypatch.setenv("FAKE_STAGE_FAILS", "convert")
    assert main(words) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: convert: ran out of luck; try again (log: ")
    monkeypatch.delenv("FAKE_STAGE_FAILS")
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in printed] == ["mean IoU", "report", "masks", "frozen graph", "checkpoints"]
