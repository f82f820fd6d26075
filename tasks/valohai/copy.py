"""What an execution left, as the output of a stage: known here, brought here when it is needed.

Beside the entry's folder in the store lie ``KEY.valohai.json``, which names the execution and its files, and
``KEY.valohai/``, those of them that are small.
"""

import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from deeplab.data.packing import unpack
from deeplab.stage.manifest import Manifest
from tasks.errors import StoreError
from tasks.store import Entry
from tasks.valohai.client import Client
from tasks.valohai.errors import NotFound, OutputMismatch
from tasks.valohai.layout import LAYOUTS, Layout
from tasks.valohai.outputs import download, list_outputs
from tasks.valohai.records import Datum, Execution


class Note(BaseModel):
    """The content of ``KEY.valohai.json``.

    Attributes:
        host: of the service.
        project: id of the project.
        execution: id of the execution.
        label: how a person calls it.
        page: its page in the browser.
        manifest: of the stage's output.
        files: output name -> id of its datum.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    project: str
    execution: str
    label: str
    page: str | None
    manifest: Manifest
    files: dict[str, str]


class ExecutionCopy:
    """A stage's output with the execution that made it.

    Args:
        client: of the execution's project.
        entry: the stage's place in the store.
        note: what is known of it.
    """

    def __init__(self, client: Client, entry: Entry, note: Note) -> None:
        self._client, self._entry, self.note = client, entry, note

    @property
    def manifest(self) -> Manifest:
        """What the output consists of."""
        return self.note.manifest

    @property
    def place(self) -> str:
        """How a person calls where it lies."""
        return f"{self.note.label} ({self.note.page})" if self.note.page else self.note.label

    @property
    def _layout(self) -> Layout:
        return LAYOUTS[self._entry.identity.stage]

    def damage(self) -> str | None:
        """Why it no longer is what it was, or None; asks the service."""
        there = {datum.id for datum in self._data().values()}
        gone = sorted(name for name, identity in self.note.files.items() if identity not in there)
        return f"{', '.join(gone)} of {self.place} {'is' if len(gone) == 1 else 'are'} gone" if gone else None

    def _data(self) -> dict[str, Datum]:
        return list_outputs(self._client, self.note.execution)

    def small_file(self, name: str) -> Path | None:
        """A file of it that is here anyway, or None."""
        path = _small_folder(self._entry) / name
        return path if path.exists() else None

    def addresses(self) -> list[str]:
        """The files that later stages read, as addresses for an execution."""
        return [f"datum://{self.note.files[name]}" for name in self._layout.handed_on]

    def sibling(self, entry: Entry) -> "ExecutionCopy | None":
        """What the same execution left of another stage, or None if it did not run that or is gone."""
        try:
            return adopt(self._client, entry, self._client.execution(self.note.execution))
        except (OtherCode, NotFound):
            return None

    def bring(self, entry: Entry) -> None:
        """Download it, check it against its manifest, and make the entry whole here."""
        layout, data = self._layout, self._data()
        wanted = [name for name in {**dict.fromkeys(layout.files), **dict.fromkeys(layout.unpacked)} if name in data]
        with entry.replaced() as folder:
            arrived = folder / ".arrived"
            download(self._client, [data[name] for name in wanted], arrived)
            for name in layout.unpacked:
                unpack(arrived / name, folder)
            for name in layout.files:
                if (arrived / name).exists():
                    (arrived / name).rename(folder / layout.local_name(name))
            shutil.rmtree(arrived)
            entry.seal(folder, self.manifest)
            _compare(Manifest.read(entry.manifest_in(folder)), self.manifest, self.place)


def _compare(here: Manifest, there: Manifest, place: str) -> None:
    """Refuse files that are not those that the stage described."""
    expected = {output.path: output.sha256 for output in there.outputs}
    for output in here.outputs:
        if output.sha256 != expected[output.path]:
            raise OutputMismatch(f"{output.path} of {place}: is not what its manifest describes; run the stage again")


def _small_folder(entry: Entry) -> Path:
    return entry.folder.with_name(f"{entry.folder.name}.valohai")


def _note_file(entry: Entry) -> Path:
    return entry.folder.with_name(f"{entry.folder.name}.valohai.json")


class OtherCode(StoreError):
    """An execution whose code did something else than the key that it carries stands for."""


def known_copy(client: Client, entry: Entry) -> ExecutionCopy | None:
    """What the store knows of an execution of this project that made the entry."""
    note = read_note(entry)
    if note is None or (note.host, note.project) != (client.connection.host, client.project.id):
        return None
    return ExecutionCopy(client, entry, note)


def read_note(entry: Entry) -> Note | None:
    """The note beside an entry, if there is one that can be read."""
    try:
        return Note.model_validate_json(_note_file(entry).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def adopt(client: Client, entry: Entry, execution: Execution) -> ExecutionCopy | None:
    """Take what a complete execution left as the entry's output; None if outputs are gone.

    Raises:
        OtherCode: if the execution did something else than the entry stands for.
    """
    layout, data = LAYOUTS[entry.identity.stage], list_outputs(client, execution.id)
    needed = {layout.manifest, *layout.handed_on, *layout.unpacked, *layout.files} - {"sheet.png"}
    if not needed <= set(data):
        return None
    small = _small_folder(entry)
    shutil.rmtree(small, ignore_errors=True)
    wanted = [data[name] for name in (layout.manifest, *layout.small) if name in data]
    download(client, wanted, small)
    manifest = _as_entry(Manifest.read(small / layout.manifest), entry, execution)
    for name in layout.small:
        if (small / name).exists():
            (small / name).rename(small / layout.local_name(name))
    files = {name: data[name].id for name in sorted({*needed, *layout.small} & set(data))}
    note = Note(
        host=client.connection.host,
        project=client.project.id,
        execution=execution.id,
        label=execution.label,
        page=execution.page,
        manifest=manifest,
        files=files,
    )
    entry.write_note()
    temporary = _note_file(entry).with_name(f".tmp-{_note_file(entry).name}")
    temporary.write_text(note.model_dump_json(indent=1) + "\n", encoding="utf-8")
    temporary.replace(_note_file(entry))
    return ExecutionCopy(client, entry, note)


def _as_entry(manifest: Manifest, entry: Entry, execution: Execution) -> Manifest:
    """The manifest in the entry's own terms: its files' names here, and its inputs' digests."""
    identity, layout = entry.identity, LAYOUTS[entry.identity.stage]
    differing = sorted(
        name
        for name in {*manifest.parameters, *identity.parameters}
        if manifest.parameters.get(name) != identity.parameters.get(name)
    )
    if manifest.stage != identity.stage or manifest.code_version != identity.code_version or differing:
        what = f"differs in {', '.join(differing)}" if differing else "is of another version of the stage"
        raise OtherCode(
            f"{execution.label} ran other code than this: its {identity.stage} {what}; "
            "hand over the code that runs here (leave --valohai.commit empty)"
        )
    outputs = tuple(output.model_copy(update={"path": layout.local_name(output.path)}) for output in manifest.outputs)
    ran = {**manifest.ran, "execution": execution.id}
    return manifest.model_copy(update={"outputs": outputs, "inputs": identity.inputs, "ran": ran})
