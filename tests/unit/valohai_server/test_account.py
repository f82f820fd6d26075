import subprocess

import httpx
import pytest

from tests.unit.valohai_server.conftest import YAML, import_package, package


def test_a_token_is_asked_for(driver):
    url = f"{driver.server.host}api/v0/users/me/"
    assert httpx.get(url).json() == {"detail": "Authentication credentials were not provided."}
    wrong = httpx.get(url, headers={"Authorization": "Token x"})
    assert (wrong.status_code, wrong.json()) == (401, {"detail": "Invalid token."})
    assert httpx.get(url, headers={"Authorization": f"Bearer {driver.server.token}"}).status_code == 401
    assert driver.client.get("/users/me/").json()["username"] == "vh"


def test_a_token_for_a_password(driver):
    url = f"{driver.server.host}api/v0/get-token/"
    assert httpx.post(url, data={"username": "vh", "password": "valohai"}).json() == {"token": driver.server.token}
    assert httpx.post(url, data={"username": "vh", "password": "x"}).status_code == 400


def test_urls_carry_the_host_that_was_asked(driver):
    host = driver.server.host.replace("127.0.0.1", "localhost")
    answer = httpx.get(f"{host}api/v0/projects/{driver.server.project}/", headers=driver.client.headers).json()
    assert answer["url"].startswith(host)


def test_projects(driver):
    made = driver.client.post("/projects/", data={"name": "other"})
    assert made.status_code == 201
    names = [row["name"] for row in driver.client.get("/projects/?limit=9000").json()["results"]]
    assert {"deeplab", "other"} <= set(names)
    assert driver.client.post("/projects/", data={"name": "other"}).status_code == 400
    path = f"/projects/{made.json()['id']}/"
    driver.client.post(f"{path}environment_variable/", json={"name": "A", "value": "s", "secret": True})
    assert driver.client.get(path).json()["environment_variables"] == {"A": {"value": None, "secret": True}}
    assert driver.client.delete(path).status_code == 204
    missing = driver.client.get(path)
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not found."})
    assert driver.client.patch("/projects/").status_code == 405


def test_packages_belong_to_one_project(driver):
    again = import_package(driver.server, driver.client, package({"valohai.yaml": YAML, "other": ""}))
    query = {"project": driver.server.project}
    assert driver.client.get(f"/commits/{again}/", params=query).json()["adhoc"] is True
    assert driver.client.get(f"/commits/{again}/", params={"project": "other"}).status_code == 404
    config = driver.client.get(f"/commits/{again}/", params={"include": "config"}).json()["config"]
    assert config[0]["step"]["name"] == "Say"
    rows = driver.client.get("/commits/", params={**query, "adhoc": "false"}).json()["results"]
    assert rows == []


@pytest.mark.parametrize(
    ("content", "field"),
    [(b"nothing", "data"), (package({"a": ""}), "yaml_path"), (package({"valohai.yaml": "- step: {}"}), "yaml")],
    ids=["no archive", "no valohai.yaml", "no step"],
)
def test_a_package_that_is_of_no_use_is_refused(driver, content, field):
    path = f"/projects/{driver.server.project}/import-package/"
    answer = driver.client.post(path, files={"data": ("data.tgz", content)}, data={"yaml_path": "valohai.yaml"})
    assert (answer.status_code, list(answer.json())) == (400, [field])


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "valohai.yaml").write_text(YAML)
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_commits_of_a_git_repository(tmp_path, repository):
    from tests.valohai_server.process import running

    with running(tmp_path / "data", f"--git={repository}") as server, server.client() as client:
        fetched = client.post(f"/projects/{server.project}/fetch/").json()
        assert fetched["errors"] == []
        (commit,) = fetched["commits"]
        assert commit["ref"] == "main"
        body = {"project": server.project, "commit": "main", "step": "Say", "inputs": {}, "parameters": {}}
        execution = client.post("/executions/", json=body).json()
        assert execution["commit"]["identifier"] == commit["identifier"]
