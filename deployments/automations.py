"""What the server does by itself: marks dead runs as crashed, and starts batch inference with a new network."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture, RunDeployment
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from tasks.publication import PUBLISHED, RESOURCE

# Deployment that a new network starts, and the parameter of its flow that receives the graph's path.
BATCH_INFERENCE = "batch-inference/batch-inference"
_MODEL = "model"

_HEARTBEAT = "prefect.flow-run.heartbeat"
# After these a run has no process, or says itself that it ends: it owes no heartbeat.
_QUIET = ("Completed", "Failed", "Crashed", "Cancelling", "Cancelled", "Suspended", "Paused", "AwaitingRetry")
# Tag of our deployments, whose runs have a heartbeat of 60 s; every other run has Prefect's own of 180 s.
_TAG = "prefect.tag.deeplab"
_OURS, _OTHERS = timedelta(seconds=180), timedelta(seconds=600)


def dead_runs(name: str, within: timedelta, tag: str | None = None) -> AutomationCore:
    """Marks a run as crashed that has lived once and says nothing any more.

    Args:
        name: of the automation.
        within: silence that is taken for death: a multiple of the heartbeat, or healthy runs are marked too.
        tag: resource of the tag of the runs to watch; None: all runs.
    """
    related = {"prefect.resource.role": "tag", "prefect.resource.id": tag} if tag else {}
    seconds = int(within.total_seconds())
    trigger = EventTrigger.model_validate(
        {
            "after": {_HEARTBEAT},
            "expect": {_HEARTBEAT, *(f"prefect.flow-run.{state}" for state in _QUIET)},
            "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
            "match_related": related,
            "for_each": {"prefect.resource.id"},
            "posture": Posture.Proactive,
            "threshold": 1,
            "within": within,
        }
    )
    message = f"No sign of life for {seconds} s: its process or machine is gone. Run it again: it goes on from there."
    action = ChangeFlowRunState(state=StateType.CRASHED, message=message)
    description = f"A run that has been silent for {seconds} s is marked as crashed"
    return AutomationCore(name=name, description=description, trigger=trigger, actions=[action])


def new_network(deployment: DeploymentResponse) -> AutomationCore:
    """Runs a deployment with the graph of each network that a training publishes."""
    trigger = EventTrigger(
        expect={PUBLISHED},
        match={"prefect.resource.id": f"{RESOURCE}*"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )
    # All its other parameters are those that the deployment has at that time.
    parameters = {_MODEL: "{{ event.payload.graph }}"}
    action = RunDeployment(source="selected", deployment_id=deployment.id, parameters=parameters)
    return AutomationCore(
        name="DeepLab: a new network is applied",
        description=f"Runs {BATCH_INFERENCE} with the graph that a training has published",
        trigger=trigger,
        actions=[action],
    )


def register_automations(client: SyncPrefectClient) -> Iterator[tuple[str, str]]:
    """Make the automations, or bring them up to date; yields each one's name and what became of it."""
    wanted = [
        dead_runs("DeepLab: dead runs are crashed", _OURS, _TAG),
        dead_runs("DeepLab: dead runs of other flows are crashed", _OTHERS),
    ]
    for automation in wanted:
        yield automation.name, _register(client, automation)
    try:
        deployment = client.read_deployment_by_name(BATCH_INFERENCE)
    except ObjectNotFound:
        yield "DeepLab: a new network is applied", f"left out: there is no deployment {BATCH_INFERENCE}"
        return
    automation = new_network(deployment)
    yield automation.name, _register(client, automation)


def _register(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    """An automation of that name stays the same one, and switched off if it is.

    One that is as it should be is not touched: a change makes the server forget which runs it watches.
    """
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return "made"
    if _content(found[0]) == _content(wanted):
        return "as it was"
    client.update_automation(found[0].id, wanted.model_copy(update={"enabled": found[0].enabled}))
    return "brought up to date"


def _content(automation: AutomationCore) -> dict[str, Any]:
    """What makes an automation, without what the server adds."""
    kept = {"description", "trigger", "actions"}
    content: dict[str, Any] = AutomationCore.model_validate(automation.model_dump()).model_dump(
        mode="json", include=kept, exclude={"trigger": {"id"}}
    )
    # Sets have no order.
    names = ("after", "expect", "for_each")
    content["trigger"] |= {name: sorted(content["trigger"][name]) for name in names}
    return content
