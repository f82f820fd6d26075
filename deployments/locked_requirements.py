"""Print the packages that this environment runs the product with, pinned: ``make lock`` writes the lock files so.

python -m deployments.locked_requirements            # what a machine that runs stages and flows needs
python -m deployments.locked_requirements dev        # what the extra adds to that
"""

import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_PRODUCT = "deeplab-prefect"


def closure(package: str, extras: frozenset[str] = frozenset()) -> dict[str, str]:
    """Name -> installed version of all that a package needs here, itself left out.

    Raises:
        LookupError: if something that it needs is not installed.
    """
    found: dict[str, str] = {}
    waiting, seen = [(package, extras)], set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            raise LookupError(f"{name} is required but not installed here") from None
        found[canonicalize_name(name)] = installed.version
        waiting += [(needed.name, frozenset(needed.extras)) for needed in _needed(installed.requires or [], wanted)]
    found.pop(canonicalize_name(package))
    return found


def _needed(lines: Iterable[str], extras: frozenset[str]) -> list[Requirement]:
    """The requirements that hold on this machine."""
    requirements = [Requirement(line) for line in lines]
    return [
        requirement
        for requirement in requirements
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": extra}) for extra in (extras or {""}))
    ]


def main() -> None:
    """Print one pinned package a line."""
    pinned = closure(_PRODUCT)
    if len(sys.argv) > 1:
        pinned = {
            name: version for name, version in closure(_PRODUCT, frozenset(sys.argv[1:])).items() if name not in pinned
        }
    for name, version in sorted(pinned.items()):
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
