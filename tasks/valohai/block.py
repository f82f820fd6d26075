"""The connection as a Prefect block, for people who keep their secrets there."""

from typing import Any

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from tasks.valohai.connection import Connection
from tasks.valohai.errors import NotConfigured


class ValohaiCredentials(Block):
    """Where Valohai is, and as whom it is used; what is left empty comes from the environment or from ``vh``."""

    _block_type_name = "Valohai credentials"
    _block_type_slug = "valohai-credentials"
    _description = "Where stages run remotely: host, token and project of Valohai."

    token: SecretStr | None = Field(default=None, description="made in the profile's settings")
    host: str | None = Field(default=None, description="address, where it is not Valohai's cloud")
    project: str | None = Field(default=None, description="id or name of the project")
    verify: bool = Field(default=True, description="check the server's certificate")
    authorities: str | None = Field(default=None, description="file with further certificate authorities")

    def connection(self) -> Connection:
        """The connection.

        Raises:
            NotConfigured: with what is missing.
        """
        verify: bool | str | None = self.authorities or (None if self.verify else False)
        return Connection.resolve(host=self.host, token=self.token, project=self.project, verify=verify)


def load_connection(block: str | None = None) -> Connection:
    """The connection of a Prefect block, or without one that of the environment or of ``vh``.

    Args:
        block: the block's name.

    Raises:
        NotConfigured: if there is no such block, or with what is missing.
    """
    if block is None:
        return Connection.resolve()
    try:
        loaded: Any = ValohaiCredentials.load(block)
    except ValueError:
        raise NotConfigured(
            f"Prefect block {block!r}: there is none of type 'valohai-credentials'; make it in the UI under Blocks"
        ) from None
    credentials: ValohaiCredentials = loaded
    return credentials.connection()
