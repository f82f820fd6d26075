"""The Prefect block gives the connection, and keeps the token to itself."""

import pytest

from tasks.valohai.block import ValohaiCredentials, load_connection
from tasks.valohai.errors import NotConfigured


def test_the_block(monkeypatch):
    block = ValohaiCredentials(token="secret-token", project="p", verify=False)
    connection = block.connection()
    assert (connection.host, connection.project, connection.verify) == ("https://app.valohai.com", "p", False)
    assert connection.token.get_secret_value() == "secret-token"
    assert "secret-token" not in f"{block!r} {block} {connection}"


def test_without_a_block(monkeypatch):
    with pytest.raises(NotConfigured):
        load_connection()
    monkeypatch.setenv("VALOHAI_TOKEN", "t")
    monkeypatch.setenv("VALOHAI_PROJECT", "p")
    assert load_connection().project == "p"
