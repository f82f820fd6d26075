"""Azure credentials as a block: what it hands on, what it refuses, and that it keeps its secrets."""

import os

import pytest

from deeplab.data.azure import find_account, parse
from tasks import azure_storage
from tasks.azure_storage import AzureStorage

CONNECTION = "AccountName=lab;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net"
BLOCKS = {
    "anonymous": ({}, {"AZURE_STORAGE_ANON": "true"}),
    "default_credential": ({"account_name": "lab"}, {"AZURE_STORAGE_ACCOUNT_NAME": "lab"}),
    "account_key": (
        {"account_name": "lab", "account_key": "c2VjcmV0"},
        {"AZURE_STORAGE_ACCOUNT_NAME": "lab", "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"},
    ),
    "sas_token": ({"sas_token": "?sv=1&sig=secret"}, {"AZURE_STORAGE_SAS_TOKEN": "?sv=1&sig=secret"}),
    "connection_string": ({"connection_string": CONNECTION}, {"AZURE_STORAGE_CONNECTION_STRING": CONNECTION}),
}


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AZURE_STORAGE_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("sign_in", BLOCKS)
def test_what_each_way_to_sign_in_puts_into_the_environment(sign_in):
    values, variables = BLOCKS[sign_in]
    block = AzureStorage(sign_in=sign_in, **values)
    assert block.variables() == variables
    assert "secret" not in repr(block) and "c2VjcmV0" not in repr(block)


@pytest.mark.parametrize("sign_in", BLOCKS)
def test_addresses_are_opened_by_the_block_and_by_nothing_else(sign_in, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "b3RoZXI=")
    monkeypatch.setattr(azure_storage, "_load", lambda name: AzureStorage(sign_in=sign_in, **BLOCKS[sign_in][0]))
    before = dict(os.environ)
    with azure_storage.azure_storage("lab"):
        account = find_account(parse("azure://lab/container/blob"))
        assert account.key == ("c2VjcmV0" if sign_in in ("account_key", "connection_string") else None)
        assert account.sas == ("sv=1&sig=secret" if sign_in == "sas_token" else None)
        assert account.anonymous == (sign_in == "anonymous")
    assert dict(os.environ) == before


def test_the_environment_comes_back_after_an_error(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    monkeypatch.setattr(azure_storage, "_load", lambda name: AzureStorage(sign_in="anonymous"))
    with pytest.raises(ZeroDivisionError), azure_storage.azure_storage("lab"):
        raise ZeroDivisionError
    assert os.environ["AZURE_STORAGE_ACCOUNT_NAME"] == "mine"
    assert "AZURE_STORAGE_ANON" not in os.environ


def test_without_a_block_the_environment_is_left_alone(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    with azure_storage.azure_storage(None):
        assert os.environ["AZURE_STORAGE_ACCOUNT_NAME"] == "mine"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sign_in": "account_key", "account_key": "x"}, "needs account_name; fill in account_name"),
        ({"sign_in": "connection_string"}, "needs connection_string"),
        ({"sign_in": "connection_string", "connection_string": "secret-key"}, "malformed; expected NAME=VALUE"),
        ({"sign_in": "anonymous", "sas_token": "x"}, "does not use sas_token; empty it, or give sign_in=sas_token"),
    ],
)
def test_what_cannot_be_is_refused_in_the_form(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        AzureStorage(**values)
    assert "secret" not in str(caught.value)
