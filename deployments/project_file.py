"""Reads ``prefect.yaml``: what is deployed, with which parameters, schedules and limits."""

from pathlib import Path
from typing import Any, Literal

import yaml
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deeplab.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
FILE = Path(__file__).with_name("prefect.yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Schedule(_Strict):
    """When a deployment runs by itself; exactly one of cron, interval (seconds) and rrule."""

    slug: str = Field(pattern="^[a-z0-9-]+$")
    cron: str | None = None
    interval: float | None = Field(None, gt=0)
    rrule: str | None = None
    timezone: str = "UTC"
    active: bool = True
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_good_rule(self) -> "Schedule":
        if sum(rule is not None for rule in (self.cron, self.interval, self.rrule)) != 1:
            raise ValueError(f"schedule {self.slug}: give one of cron, interval and rrule")
        try:
            self.create(None)
        except ValidationError as error:
            raise ValueError(f"schedule {self.slug}: {_reason(error)}") from None
        return self

    def create(self, active: bool | None) -> DeploymentScheduleCreate:
        """For Prefect's API.

        Args:
            active: whether it is switched on; None: as the file says.
        """
        rule: CronSchedule | IntervalSchedule | RRuleSchedule
        if self.cron is not None:
            rule = CronSchedule(cron=self.cron, timezone=self.timezone)
        elif self.interval is not None:
            rule = IntervalSchedule.model_validate({"interval": self.interval, "timezone": self.timezone})
        else:
            rule = RRuleSchedule(rrule=self.rrule or "", timezone=self.timezone)
        return DeploymentScheduleCreate(
            slug=self.slug,
            schedule=rule,
            active=self.active if active is None else active,
            parameters=self.parameters,
        )


class Limit(_Strict):
    """How many runs of a deployment there may be at once, and what becomes of one more.

    A run whose machine takes longer than ``grace_period_seconds`` to start loses its place (None: the server's 300).
    """

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    grace_period_seconds: int | None = Field(None, ge=60, le=86400)

    @property
    def options(self) -> ConcurrencyOptions:
        """For Prefect's API."""
        return ConcurrencyOptions(
            collision_strategy=ConcurrencyLimitStrategy(self.collision_strategy),
            grace_period_seconds=self.grace_period_seconds,
        )


class Pool(_Strict):
    """Where a deployment's runs go."""

    name: str
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = Field(default_factory=dict)


class Entry(_Strict):
    """One deployment; ``entrypoint`` is ``PATH:FUNCTION`` from the top folder."""

    name: str
    entrypoint: str = Field(pattern=r"^[\w/]+\.py:\w+$")
    description: str
    tags: list[str]
    work_pool: Pool
    parameters: dict[str, Any] = Field(default_factory=dict)
    schedules: list[Schedule] = Field(default_factory=list)
    concurrency_limit: Limit | None = None

    def file(self, root: Path) -> Path:
        """The flow's file."""
        return root / self.entrypoint.partition(":")[0]


class ProjectFile(BaseModel):
    """The file's content; its definitions only serve to be referred to."""

    model_config = ConfigDict(frozen=True)

    pull: list[dict[str, Any]]
    deployments: list[Entry]


def read(path: Path = FILE) -> ProjectFile:
    """Read the file.

    Raises:
        ConfigError: for what cannot be deployed, naming the place in the file.
    """
    try:
        return ProjectFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ConfigError(f"{path}: {place}: {_reason(error)}") from None


def _reason(error: ValidationError) -> str:
    """The first thing that is wrong."""
    return error.errors()[0]["msg"].removeprefix("Value error, ")
