"""Where host, token and project come from."""

import json
import traceback

import pytest

from tasks.valohai.connection import Connection, login_file, normalised_host
from tasks.valohai.errors import NotConfigured

TOKEN = "very-secret-token"


@pytest.fixture
def login(tmp_path):
    def write(**content):
        login_file().parent.mkdir(exist_ok=True)
        login_file().write_text(json.dumps(content))

    return write


def test_the_environment(monkeypatch):
    monkeypatch.setenv("VALOHAI_TOKEN", f" {TOKEN}\n")
    monkeypatch.setenv("VALOHAI_HOST", "valohai.example/")
    monkeypatch.setenv("VALOHAI_PROJECT", "deeplab")
    found = Connection.resolve()
    assert (found.host, found.project, found.token.get_secret_value()) == ("https://valohai.example", "deeplab", TOKEN)


def test_what_is_given_wins(monkeypatch):
    monkeypatch.setenv("VALOHAI_TOKEN", "other")
    monkeypatch.setenv("VALOHAI_HOST", "https://other.example")
    found = Connection.resolve(host="http://127.0.0.1:8000", token=TOKEN, project="p")
    assert (found.host, found.token.get_secret_value()) == ("http://127.0.0.1:8000", TOKEN)


def test_the_login_of_vh_with_the_link_of_a_parent(login, tmp_path):
    below = tmp_path / "code" / "below"
    below.mkdir(parents=True)
    links = {str(tmp_path / "code"): {"id": "p1", "name": "deeplab"}, str(tmp_path): {"id": "p0"}}
    login(host="https://private.example/", token=TOKEN, verify_ssl=False, links=links)
    found = Connection.resolve(directory=below)
    assert (found.host, found.project, found.verify) == ("https://private.example", "p1", False)


def test_a_token_of_the_environment_does_not_go_to_the_host_of_the_login(login, monkeypatch, tmp_path):
    login(host="https://private.example/", token="theirs", links={str(tmp_path): {"id": "p0"}})
    monkeypatch.setenv("VALOHAI_TOKEN", TOKEN)
    with pytest.raises(NotConfigured, match="VALOHAI_PROJECT"):
        Connection.resolve(directory=tmp_path)
    assert Connection.resolve(project="p").host == "https://app.valohai.com"


def test_the_token_of_the_login_goes_to_no_other_host(login):
    login(host="https://private.example/", token=TOKEN)
    with pytest.raises(NotConfigured, match=r"is for https://private\.example"):
        Connection.resolve(host="https://evil.example", project="p")


def test_what_is_missing_is_said():
    with pytest.raises(NotConfigured, match=r"VALOHAI_TOKEN.*vh login.*block"):
        Connection.resolve()
    with pytest.raises(NotConfigured, match=r"VALOHAI_PROJECT.*vh project link"):
        Connection.resolve(token=TOKEN)


def test_a_broken_login_is_named(login):
    login()
    login_file().write_text("{")
    with pytest.raises(NotConfigured, match=r"config\.json"):
        Connection.resolve(token=TOKEN, project="p")


@pytest.mark.parametrize("host", ["ftp://x", "https://", "https://user:pw@x", "https://x/prefix", "https://x:99999"])
def test_hosts_that_are_none(host):
    with pytest.raises(NotConfigured) as raised:
        normalised_host(host)
    assert "pw" not in str(raised.value)


def test_the_token_is_not_shown():
    found = Connection.resolve(token=TOKEN, project="p")
    assert TOKEN not in f"{found!r} {found}"
    with pytest.raises(NotConfigured) as raised:
        Connection.resolve(token=f"{TOKEN} {TOKEN}", project="p")
    assert TOKEN not in "".join(traceback.format_exception(raised.value)).replace("token=", "")
