"""Where each stage of a run takes place, as its parameters say."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from flows.parameters import WITH_BACKEND, ValohaiSection
from tasks.azure_storage import azure_storage
from tasks.mirror import Mirror
from tasks.places import open_store
from tasks.stage import Site
from tasks.store import Store

if TYPE_CHECKING:
    from tasks.valohai.runner import Runner


class Placement(Protocol):
    """The parameters of a flow, as far as they say where its stages run."""

    @property
    def store(self) -> str:
        """Path or URL."""

    @property
    def azure_storage(self) -> str | None:
        """The block that opens addresses of Azure; None: the environment does."""

    @property
    def valohai(self) -> ValohaiSection:
        """How stages run as executions."""

    def runs_remotely(self, stage: str) -> bool:
        """Whether a stage runs as an execution."""

    def environment(self, stage: str) -> str | None:
        """The machine type of a stage's execution."""


class Sites:
    """Gives the place of each stage.

    Args:
        parameters: of the run.
        store: where outputs live here.
        mirror: the store's remote place.
        service: runs stages on Valohai, if any is to run there.
    """

    def __init__(self, parameters: Placement, store: Store, mirror: Mirror | None, service: "Runner | None") -> None:
        self._parameters, self._store, self._mirror, self._service = parameters, store, mirror, service

    @classmethod
    @contextmanager
    def of(cls, parameters: Placement) -> Iterator["Sites"]:
        """Open the store, and the connection where a stage needs it, until the end of the block of code.

        Meanwhile this process and those it starts open Azure's addresses as the parameters say.

        Raises:
            ConfigError: for a block that is not there, or cannot be used.
            StoreError: for a store that cannot be used.
            ValohaiError: for a connection that is not configured, or a project that is not there.
        """
        with azure_storage(parameters.azure_storage):
            store, mirror = open_store(parameters.store)
            remote = any(parameters.runs_remotely(stage) for stage in WITH_BACKEND)
            service = _service(parameters.valohai) if remote else None
            try:
                yield cls(parameters, store, mirror, service)
            finally:
                if service is not None:
                    service.client.close()

    def __call__(self, stage: str) -> Site:
        """The place of a stage."""
        return Site(
            self._store,
            self._mirror,
            self._service,
            remote=self._parameters.runs_remotely(stage),
            environment=self._parameters.environment(stage),
        )


def _service(section: ValohaiSection) -> "Runner":
    from tasks.valohai.block import load_connection
    from tasks.valohai.client import Client
    from tasks.valohai.polling import Limits
    from tasks.valohai.runner import Options, Runner

    client = Client(load_connection(section.credentials))
    _ = client.project  # a wrong token or project is told before any work
    limits = Limits(queue=section.queue_limit_secs, run=section.run_limit_secs)
    return Runner(client, Options(section.commit, limits))
