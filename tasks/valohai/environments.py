"""The machine types that executions may ask for."""

from tasks.valohai.client import Client
from tasks.valohai.errors import InvalidRequest
from tasks.valohai.records import Environment


def find_environment(client: Client, wanted: str) -> Environment:
    """The environment of a slug, a name or an id.

    Raises:
        InvalidRequest: when there is none, or more than one; tells which there are.
    """
    known = client.environments()
    word = wanted.strip().lower()
    found = [item for item in known if word in (item.slug.lower(), item.name.lower(), item.id.lower())]
    if len(found) == 1:
        return found[0]
    problem = "several environments are called so, give a slug" if found else "there is no such environment"
    there = ", ".join(f"{item.slug} ({item.name})" for item in sorted(known, key=lambda item: item.slug))
    raise InvalidRequest(f"environment {wanted!r}: {problem}; there are: {there or 'none'}")
