"""Flows of a moment, deployed beside the real ones in tests."""

from prefect import flow
from pydantic import BaseModel


class BatchParameters(BaseModel):
    model: str
    images: str


@flow(name="batch-inference")
def batch_inference(parameters: BatchParameters) -> str:
    return parameters.model


@flow(name="tick")
def tick() -> None:
    pass
