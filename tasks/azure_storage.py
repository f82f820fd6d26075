"""Credentials of Azure blob storage as a Prefect block, handed to stages through the environment.

A run names the block; its content reaches the stages' processes as ``AZURE_STORAGE_…``, which
:mod:`deeplab.data.azure` reads, and no parameter, log or manifest.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, ValidationError, model_validator

from deeplab.data.azure import check_connection_string
from deeplab.errors import ConfigError

_PREFIX = "AZURE_STORAGE_"
_SLUG = "azure-storage"
# What each way to sign in needs; of all others nothing may be in the environment.
_NEEDS = {
    "anonymous": (),
    "account_key": ("account_name", "account_key"),
    "sas_token": ("sas_token",),
    "connection_string": ("connection_string",),
    "default_credential": (),
}
_SECRETS = ("account_key", "sas_token", "connection_string")
SignIn = Literal["anonymous", "account_key", "sas_token", "connection_string", "default_credential"]


class AzureStorage(Block):
    """How ``az://`` and ``azure://`` addresses are opened."""

    # An error would repeat the secrets.
    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "Azure storage"
    _block_type_slug = _SLUG
    _description = "Opens the data set's address and the store in Azure blob storage."

    sign_in: SignIn = Field(
        default="default_credential",
        description="anonymous: public containers; default_credential: whoever is signed in on the machine, such as "
        "its managed identity or az login; else what is filled in below",
    )
    account_name: str | None = Field(default=None, description="storage account, where an address names none")
    account_key: SecretStr | None = Field(default=None, description="one of the account's two keys")
    sas_token: SecretStr | None = Field(default=None, description="shared access signature")
    connection_string: SecretStr | None = Field(default=None, description="AccountName=…;AccountKey=… and the like")

    @model_validator(mode="after")
    def _check(self) -> "AzureStorage":
        missing = [name for name in _NEEDS[self.sign_in] if not self._text(name)]
        if missing:
            raise ValueError(f"sign_in={self.sign_in} needs {' and '.join(missing)}; fill in {missing[0]}")
        extra = [name for name in _SECRETS if self._text(name) and name not in _NEEDS[self.sign_in]]
        if extra:
            raise ValueError(f"sign_in={self.sign_in} does not use {extra[0]}; empty it, or give sign_in={extra[0]}")
        if self.sign_in == "connection_string":
            try:
                check_connection_string(self._text("connection_string"))
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return self

    def _text(self, name: str) -> str:
        value = getattr(self, name)
        return str(value.get_secret_value() if isinstance(value, SecretStr) else value or "").strip()

    def variables(self) -> dict[str, str]:
        """The environment variables that stand for this block, and that alone may be set beside them."""
        found = {f"{_PREFIX}{name.upper()}": self._text(name) for name in ("account_name", *_NEEDS[self.sign_in])}
        if self.sign_in == "anonymous":
            found[f"{_PREFIX}ANON"] = "true"
        return {name: value for name, value in found.items() if value}


@contextmanager
def azure_storage(block: str | None) -> Iterator[None]:
    """Until the end of the block of code, this process and those it starts open Azure addresses by a Prefect block.

    Args:
        block: its name; None leaves the environment as it is.

    Raises:
        ConfigError: if there is no such block, or it cannot be used.
    """
    if block is None:
        yield
        return
    variables = _load(block).variables()
    before = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}
    _replace(before, variables)
    try:
        yield
    finally:
        _replace(variables, before)


def _replace(old: dict[str, str], new: dict[str, str]) -> None:
    for name in old:
        os.environ.pop(name, None)
    os.environ.update(new)


def _load(block: str) -> AzureStorage:
    try:
        loaded: Any = AzureStorage.load(block)
    except ValidationError as error:
        reason = error.errors(include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"Prefect block {block!r}: {reason}") from None
    except ValueError:
        raise ConfigError(
            f"Prefect block {block!r}: there is none of type {_SLUG!r}; make it in the UI under Blocks"
        ) from None
    storage: AzureStorage = loaded
    return storage
