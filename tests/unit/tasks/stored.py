"""Entries of a store without their stages: finished, made of each other, and as old as a test needs."""

import os
import time

from deeplab.stage.manifest import Manifest, describe_output, products_digest
from tasks.call import OUTPUTS
from tasks.store import Entry, Identity, Store, parts

DAY = 86400


def finish(entry: Entry, **files: str) -> Entry:
    """Seal an entry with files name -> text."""
    entry.prepare()
    entry.folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (entry.folder / name).write_text(text)
    outputs = tuple(describe_output(entry.folder, entry.folder / name, "product") for name in sorted(files))
    manifest = Manifest(**entry.identity.model_dump(), outputs=outputs, digest=products_digest(outputs))
    manifest.write(entry.manifest_file)
    return entry


def made(store: Store, stage: str, inputs: dict[str, Entry | str] | None = None, **parameters: object) -> Entry:
    """A finished entry, made of others."""
    digests = {
        flag: source if isinstance(source, str) else source.manifest().digest for flag, source in (inputs or {}).items()
    }
    identity = Identity(stage=stage, code_version=1, parameters=parameters, inputs=digests)
    name = OUTPUTS.get(stage, ("", None))[1]
    return finish(store.entry(identity, name), **{name or "product": identity.key})


def chain(store: Store, **parameters: object) -> dict[str, Entry]:
    """Stage -> entry of a run; the archive and its shards are the same for all runs."""
    fetched = made(store, "fetch", {"source": "address"})
    shards = made(store, "convert", {"source": fetched}, dataset="sample")
    training = made(store, "train", {"dataset_dir": shards}, dataset="sample", **parameters)
    evaluation = made(store, "evaluate", {"dataset_dir": shards, "checkpoint_dir": training})
    report = made(store, "report", {"evaluate": f"{evaluation.identity.key} {evaluation.manifest().digest}"})
    return {"fetch": fetched, "convert": shards, "train": training, "evaluate": evaluation, "report": report}


def aged(entry: Entry, days: float) -> Entry:
    """As if it was last used so long ago."""
    for path in parts(entry.folder):
        os.utime(path, (time.time() - days * DAY,) * 2)
    return entry
