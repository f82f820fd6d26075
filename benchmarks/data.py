"""What fetching, converting and packing cost, against curl, adlfs, ``unzip`` and ``tarfile``.

    python -m benchmarks.data ADEChallengeData2016.zip --rounds=5

All commands run in turn, as whole processes: medians, and the ratios that the project holds itself to. The conversions
read what fetch left, as in the flow, and leave packing to a line of its own. Needs ``unzip``,
``curl`` and ``azurite-blob`` (``make tools``) on the path; writes some five times the archive's size to --folder.

The original's converter needs TensorFlow 1.15, so it is cited, not run: 332 pairs a second as a whole process on the
machine where ``convert --validate=headers`` made 3,300 and more.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks.processes import Command, Cost, held, run_in_turn, run_once, table
from tests.azurite import Azurite, running

_BLOB = "archive.zip"
# Stand-alone programs, so that each is measured with its own start-up and memory.
_TARFILE = (
    "import sys, tarfile; tar = tarfile.open(sys.argv[1], 'w:gz'); [tar.add(p) for p in sys.argv[2:]]; tar.close()"
)
_PACK = """import sys; from pathlib import Path; from deeplab.data.packing import pack
pack(map(Path, sys.argv[2:]), Path(sys.argv[1]))"""
_ADLFS = """import sys; from adlfs import AzureBlobFileSystem
AzureBlobFileSystem(connection_string=sys.argv[1]).get_file(sys.argv[2], sys.argv[3])"""
_UPLOAD = """import sys; from azure.storage.blob import BlobServiceClient
service = BlobServiceClient.from_connection_string(sys.argv[1])
service.create_container(sys.argv[2], public_access='blob')
with open(sys.argv[4], 'rb') as file:
    service.get_blob_client(sys.argv[2], sys.argv[3]).upload_blob(file, max_concurrency=4)"""


def main() -> int:
    """Measure, and print; returns 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="an archive in ADE20K's layout")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command")
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's place for temporary files")
    given = parser.parse_args()
    missing = [program for program in ("unzip", "curl", "sha256sum", "azurite-blob") if shutil.which(program) is None]
    if missing:
        parser.error(f"not on the path: {', '.join(missing)}; `make tools` installs azurite-blob, as .ci/run shows")
    with tempfile.TemporaryDirectory(prefix="deeplab-benchmark-", dir=given.folder) as folder:
        return measure(given.archive.resolve(), Path(folder), given.rounds)


def measure(archive: Path, folder: Path, rounds: int) -> int:
    """Time everything on one archive."""
    size = archive.stat().st_size / 1e6
    # Not read by this program: the more memory it has had, the higher the peak that the system counts for the others.
    listed = subprocess.run(["unzip", "-Z1", str(archive)], stdout=subprocess.PIPE, text=True, check=True).stdout
    pairs = listed.count(".png\n")
    print(f"{archive.name}: {pairs} pairs, {size:.0f} MB, medians of {rounds}\n")
    fetched = folder / "fetched-zip"
    run_once(Command([sys.executable, "-m", "deeplab", "fetch", f"--source={archive}", f"--output_dir={fetched}"]))
    costs = run_in_turn(_conversions(fetched, archive, folder), rounds)
    costs |= run_in_turn(_packings(folder), rounds)
    with running(folder / "azurite") as service:
        container = _upload(service, archive)
        costs |= run_in_turn(_downloads(service, container, folder), rounds)
    print(table(costs), end="\n\n")
    print(f"convert, headers checked: {pairs / costs['convert headers'].wall:,.0f} pairs/s; the original cited: 332")
    kept = [held(*line) for line in _targets(costs)]
    return 0 if all(kept) else 1


def _conversions(fetched: Path, archive: Path, folder: Path) -> dict[str, Command]:
    def convert(name: str, *flags: str) -> Command:
        target = folder / name
        words = [sys.executable, "-m", "deeplab", "convert", f"--source={fetched}", f"--output_dir={target}", *flags]
        return Command(words, partial(shutil.rmtree, target, ignore_errors=True))

    tree = folder / "tree"
    shards_only = "--archive=false"
    return {
        "unzip -q": Command(["unzip", "-q", str(archive), "-d", str(tree)], partial(shutil.rmtree, tree, True)),
        "convert headers": convert("headers", "--validate=headers", shards_only),
        "convert headers, 1 thread": convert("headers", "--validate=headers", shards_only, "--num_threads=1"),
        "convert": convert("labels", shards_only),
        "convert, 1 thread": convert("labels", shards_only, "--num_threads=1"),
        "convert headers and pack": convert("packed", "--validate=headers"),
    }


def _packings(folder: Path) -> dict[str, Command]:
    shards = [str(path) for path in sorted((folder / "labels").glob("*.tfrecord"))]
    return {
        "tarfile w:gz": Command([sys.executable, "-c", _TARFILE, str(folder / "tarfile.tar.gz"), *shards]),
        "pack": Command([sys.executable, "-c", _PACK, str(folder / "ours.tar.gz"), *shards]),
    }


def _upload(service: Azurite, archive: Path) -> str:
    container = "benchmark"
    run_once(Command([sys.executable, "-c", _UPLOAD, service.connection_string, container, _BLOB, str(archive)]))
    return container


def _downloads(service: Azurite, container: str, folder: Path) -> dict[str, Command]:
    curled, adlfs, ours = folder / "curled.zip", folder / "adlfs.zip", folder / "fetched"
    url = f"{service.endpoint}/{container}/{_BLOB}"
    get_file = [sys.executable, "-c", _ADLFS, service.connection_string, f"{container}/{_BLOB}", str(adlfs)]
    fetch = [sys.executable, "-m", "deeplab", "fetch", f"--source={url}", f"--output_dir={ours}"]
    curl = ["curl", "-sSf", "-o", str(curled), url]
    checked = ["sh", "-c", '"$@" && sha256sum "$4"', "sh", *curl]
    return {
        "curl": Command(curl, partial(curled.unlink, missing_ok=True)),
        "curl, then sha256sum": Command(checked, partial(curled.unlink, missing_ok=True)),
        "adlfs get_file": Command(get_file, partial(adlfs.unlink, missing_ok=True)),
        "fetch": Command(
            [*fetch, f"--azure_endpoint={service.endpoint}"], partial(shutil.rmtree, ours, ignore_errors=True)
        ),
    }


def _targets(costs: Mapping[str, Cost]) -> list[tuple[str, float, float]]:
    unzip, tar, curl, adlfs = (costs[name] for name in ("unzip -q", "tarfile w:gz", "curl", "adlfs get_file"))
    headers, labels, fetch = (costs[name] for name in ("convert headers", "convert", "fetch"))
    return [
        ("CPU of convert --validate=headers / unzip -q", headers.cpu / unzip.cpu, 0.7),
        ("CPU of convert / unzip -q", labels.cpu / unzip.cpu, 3.4),
        ("wall of convert, 2 threads / 1", labels.wall / costs["convert, 1 thread"].wall, float("inf")),
        ("peak MB of convert", max(headers.peak, labels.peak), 150),
        ("CPU of pack / tarfile w:gz", costs["pack"].cpu / tar.cpu, 0.12),
        ("wall of fetch / curl", fetch.wall / curl.wall, 1.1),
        ("wall of fetch / curl, then sha256sum", fetch.wall / costs["curl, then sha256sum"].wall, float("inf")),
        ("wall of fetch / adlfs get_file", fetch.wall / adlfs.wall, 0.5),
        ("peak MB of fetch", fetch.peak, 80),
    ]


if __name__ == "__main__":
    sys.exit(main())
