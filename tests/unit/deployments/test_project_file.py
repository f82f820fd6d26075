"""Every deployment can run: its flow is there, takes its parameters, and its hooks are called as they are named."""

import importlib
import inspect
import re
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from deeplab.errors import ConfigError
from deployments import automations, serve
from deployments.project_file import FILE, ROOT, read
from deployments.register import load, main
from deployments.work_pool import CONCURRENCY_LIMIT

FILES = [FILE, ROOT / "deployments/docker/prefect.yaml", ROOT / "deployments/kubernetes/prefect.yaml"]
ENTRIES = [entry for file in FILES for entry in read(file).deployments if entry.file(ROOT).is_file()]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_entrypoint_imports_and_takes_its_parameters(entry):
    flow = load(entry)
    assert flow.name and entry.description.strip() and "deeplab" in entry.tags
    path, _, name = entry.entrypoint.partition(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    assert getattr(module, name).name == flow.name


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_hooks_can_be_called_by_name(entry):
    """The worker calls them by keyword, in another process."""
    flow = load(entry)
    for kind in ("on_cancellation", "on_crashed", "on_failure", "on_completion", "on_running"):
        for hook in getattr(flow, f"{kind}_hooks") or ():
            inspect.signature(hook).bind(flow=None, flow_run=None, state=None)


def test_training_waits_for_its_turn_and_no_schedule_is_on():
    entries = {entry.name: entry for entry in read().deployments}
    for name in ("train-local", "train-valohai"):
        limit = entries[name].concurrency_limit
        assert limit is not None and (limit.limit, limit.collision_strategy) == (1, "ENQUEUE")
        (nightly,) = entries[name].schedules
        assert nightly.slug == "nightly" and not nightly.active
    assert entries["train-valohai"].parameters["parameters"]["backend"] == "valohai"


def test_runs_that_wait_for_others_leave_places_in_the_pool():
    """For the GPU, for Valohai, for their trials: if sweeps could fill the pool, their trials would find no place."""
    entries = {entry.name: entry for entry in read().deployments}
    limits = [entries[name].concurrency_limit for name in ("train-local", "train-valohai", "sweep", "trial")]
    assert sum(limit.limit for limit in limits) < CONCURRENCY_LIMIT


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_heartbeat_is_well_within_the_silence_that_counts_as_death(entry):
    heartbeat = int(entry.work_pool.job_variables["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert timedelta(seconds=3 * heartbeat) <= automations._OURS
    assert timedelta(seconds=3 * 180) <= automations._OTHERS, "three times Prefect's own default"


def test_a_run_that_waits_for_a_person_is_not_dead():
    trigger = automations.dead_runs("x", timedelta(seconds=60)).trigger
    assert {"prefect.flow-run.Suspended", "prefect.flow-run.Paused"} <= trigger.expect


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deployments: [", "while parsing"),
        ("pull: []\ndeployments:\n- {name: x}", r"deployments\.0\.entrypoint: Field required"),
        ("pull: []\ndeployments:\n- {nam: x}", r"deployments\.0\."),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text, message):
    file = tmp_path / "prefect.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read(file)
    assert "\n" not in str(caught.value)


def test_bad_parameters_and_schedules_are_refused(tmp_path):
    entry = next(entry for entry in ENTRIES if entry.name == "train-local")
    wrong = entry.model_copy(update={"parameters": {"parameters": {"preset": "dmo"}}})
    with pytest.raises(ConfigError, match=r"train-local: parameters: .*did you mean demo\?"):
        load(wrong)
    absent = entry.model_copy(update={"entrypoint": "flows/train.py:no_flow"})
    with pytest.raises(ConfigError, match=r"flows/train\.py:no_flow cannot be loaded"):
        load(absent)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ('cron: "0 2 * * *"\n    interval: 3', "give one of cron, interval and rrule"),
        ('cron: "0 2 * *"', "[Ii]nvalid cron"),
        ('cron: "0 2 * * *"\n    timezone: Europe/Pariss', "timezone"),
        ("rrule: FREQ=NEVER", "[Rr][Rr]ule"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_before_anything_is_registered(tmp_path, rule, message):
    text = Path(FILE).read_text().replace('cron: "0 2 * * *"\n    timezone: UTC', rule)
    (tmp_path / "prefect.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"schedule nightly: .*{message}") as caught:
        read(tmp_path / "prefect.yaml")
    assert "\n" not in str(caught.value)


def test_the_job_has_what_the_kubernetes_worker_requires():
    """As prefect-kubernetes checks it; the volume is written to by the image's user."""
    job = yaml.safe_load((ROOT / "deployments/kubernetes/job.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    assert (job["apiVersion"], job["kind"], pod["completions"], pod["parallelism"]) == ("batch/v1", "Job", 1, 1)
    assert pod["restartPolicy"] == "Never" and pod["containers"][0]["name"] == "prefect-job"
    user = re.search(r"--uid (\d+)", (ROOT / "deployments/docker/Dockerfile").read_text())[1]
    assert pod["securityContext"]["fsGroup"] == int(user)


def test_without_a_server_nothing_is_registered(capsys):
    with temporary_settings({PREFECT_API_URL: None}):
        assert main([]) == 2
    assert "no server is configured: start one (make serve" in capsys.readouterr().err


def test_a_pod_may_take_longer_to_start_than_the_server_allows_of_itself():
    (entry,) = read(ROOT / "deployments/kubernetes/prefect.yaml").deployments
    assert entry.concurrency_limit.options.grace_period_seconds == 7200


@pytest.mark.parametrize(
    ("flag", "message"), [("--port=99999", "a port is a number"), ("--host=192.0.2.1", "an address of this machine")]
)
def test_where_nobody_can_listen(capsys, tmp_path, flag, message):
    assert serve.main([f"--home={tmp_path}", flag]) == 2
    assert message in capsys.readouterr().err
