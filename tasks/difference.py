"""Why a stage runs that was not run like this before: what tells it from the most similar entry of the store."""

from typing import Any

from tasks.call import flag_text
from tasks.store import Identity, Store, last_used

# Differences that are named; the others are counted.
_NAMED = 3
_SHORT_KEY = 8


def why_new(store: Store, wanted: Identity) -> str | None:
    """What is different this time, or None if the store has nothing else of that stage.

    Of equally similar entries the one counts that was used last.
    """
    others = [entry for entry in store.entries(wanted.stage) if entry.identity != wanted]
    if not others:
        return None
    nearest = min(others, key=lambda entry: (len(_names(wanted, entry.identity)), -last_used(entry.folder)))
    found = [_sentence(wanted, nearest.identity, name) for name in _names(wanted, nearest.identity)]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"{', '.join(found[:_NAMED])}{more} (compared with {nearest.identity.key[:_SHORT_KEY]})"


def _names(now: Identity, before: Identity) -> list[tuple[str, str]]:
    """Kind and name of everything that differs: the code and the inputs first, as they explain more."""
    code = [("code", "")] if now.code_version != before.code_version else []
    inputs = [("input", name) for name in _differing(now.inputs, before.inputs)]
    return [*code, *inputs, *(("parameter", name) for name in _differing(now.parameters, before.parameters))]


def _differing(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    return sorted(name for name in {*now, *before} if now.get(name) != before.get(name))


def _sentence(now: Identity, before: Identity, difference: tuple[str, str]) -> str:
    kind, name = difference
    if kind == "code":
        return f"the stage's code changed ({before.code_version} -> {now.code_version})"
    if kind == "input":
        return f"its input {name} is {'new' if name in now.inputs else 'not there any more'}"
    values = (flag_text(parameters.get(name)) for parameters in (now.parameters, before.parameters))
    return f"{now.stage}.{name} is {' and was '.join(values)}"
