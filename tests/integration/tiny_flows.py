"""A flow of a moment, deployed beside the real ones in tests."""

from prefect import flow


@flow(name="tick")
def tick() -> None:
    pass
