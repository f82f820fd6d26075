import hashlib

import httpx
import pytest


def test_outputs_with_side_cars_aliases_and_folders(driver):
    script = """
mkdir -p $VH_OUTPUTS_DIR/deep; cd $VH_OUTPUTS_DIR
printf abc > deep/model.pb
printf '{"valohai.tags": ["prod"], "valohai.alias": "best", "k": 1}' > deep/model.pb.metadata.json
printf x > other
printf '{"file": "other", "metadata": {"n": 2}}\\n' > valohai.metadata.jsonl
"""
    ended = driver.finish(driver.say(script))
    outputs = driver.outputs(ended)
    assert set(outputs) == {"deep/model.pb", "other"}
    model = outputs["deep/model.pb"]
    assert (model["size"], model["sha256"]) == (3, hashlib.sha256(b"abc").hexdigest())
    assert model["md5"] == hashlib.md5(b"abc").hexdigest()
    assert model["sha1"] == hashlib.sha1(b"abc").hexdigest()
    assert model["tags"] == ["prod"]
    assert model["metadata"]["k"] == 1
    assert model["output_execution"] == {"id": ended["id"], "counter": ended["counter"]}
    assert outputs["other"]["metadata"] == {"n": 2}
    assert driver.content(model) == b"abc"
    resolved = driver.client.get("/datum-aliases/resolve/", params={"name": "best", "project": driver.server.project})
    assert resolved.json()["datum"]["id"] == model["id"]
    assert driver.client.get(f"/data/{model['id']}").json()["name"] == "deep/model.pb"  # valohai-utils: no slash
    copied = driver.finish(driver.say("cat /valohai/inputs/data/model.pb", inputs={"data": ["datum://best"]}))
    assert driver.messages(copied, "stdout") == ["abc"]
    assert copied["inputs"][0] == {"name": "data", "urls": [f"datum://{model['id']}"]}


def test_a_read_only_file_is_taken_at_once(driver):
    script = "cd $VH_OUTPUTS_DIR; printf one > a; chmod 444 a; while [ -e a ]; do sleep 0.05; done; echo gone; sleep 20"
    execution = driver.say(script)
    driver.until(execution, lambda _: "gone" in driver.messages(execution))
    assert driver.content(driver.outputs(execution)["a"]) == b"one"
    assert driver.read(execution)["status"] == "started"
    driver.client.post(f"/executions/{execution['id']}/stop/")
    assert list(driver.outputs(driver.finish(execution))) == ["a"]


def test_inputs_from_http_and_datum(driver, server):
    server.files["folder/file.txt"] = b"from http"
    datum = driver.server.upload("in/side.bin", b"uploaded")
    inputs = {"data": [f"{server.address}/folder/file.txt?x=1", datum], "kept": [datum]}
    ended = driver.finish(driver.say("cd /valohai/inputs; find . -type f | sort; cat data/file.txt", inputs=inputs))
    assert driver.messages(ended, "stdout") == ["./data/file.txt", "./data/side.bin", "./kept/in/side.bin", "from http"]
    assert any("sha256" in message for message in driver.messages(ended, "status"))


def test_an_input_that_is_not_there_ends_in_error(driver, server):
    ended = driver.finish(driver.say("true", inputs={"data": [f"{server.address}/nothing"]}))
    assert ended["status"] == "error"
    assert any("404" in message for message in driver.messages(ended))


def test_an_azure_account_must_be_known(driver):
    ended = driver.finish(driver.say("true", inputs={"data": ["azure://moon/container/blob"]}))
    assert ended["status"] == "error"
    assert any("--azure=moon=URL" in message for message in driver.messages(ended))


def test_links_are_signed_purge_removes_the_bytes(driver):
    identity = driver.server.upload("file", b"content").removeprefix("datum://")
    url = driver.client.get(f"/data/{identity}/download/").json()["url"]
    assert httpx.get(url, headers={"Range": "bytes=3-"}).content == b"tent"
    assert httpx.get(url.replace("signature=", "signature=0")).status_code == 403
    assert driver.client.post(f"/data/{identity}/purge/").status_code == 200
    assert httpx.get(url).status_code == 404
    assert driver.client.get(f"/data/{identity}/").json()["purged"] is True
    assert driver.client.delete(f"/data/{identity}/").status_code == 204
    assert driver.client.get(f"/data/{identity}/").status_code == 404


@pytest.mark.parametrize("name", ["limit=1", "limit=1&no_count=true"])
def test_data_of_a_project(driver, name):
    driver.server.upload("one", b"1")
    driver.server.upload("two", b"2")
    page = driver.client.get(f"/data/?project={driver.server.project}&ordering=-ctime&{name}").json()
    assert [row["name"] for row in page["results"]] == ["two"]
    assert ("count" in page) == ("no_count" not in name)
