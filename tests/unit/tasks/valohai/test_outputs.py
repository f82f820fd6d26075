"""Outputs come whole or not at all."""

import logging
import os

import pytest

from tasks.valohai.errors import OutputMismatch, Unreachable
from tasks.valohai.outputs import addresses, download, list_outputs


@pytest.fixture(params=[False, True], ids=["link", "direct"])
def service(service, request):
    service.direct = request.param
    return service


def test_outputs_with_folders(client, service, tmp_path):
    service.output("a.bin", b"old")
    service.output("a.bin", b"new content")
    service.output("deep/er/b.bin", os.urandom(3_000_000))
    service.output("gone", b"", purged=True)
    service.output("empty", b"")
    found = list_outputs(client, "1")
    assert sorted(found) == ["a.bin", "deep/er/b.bin", "empty"]
    assert addresses([found["a.bin"]]) == ["datum://d001"]
    paths = download(client, found.values(), tmp_path / "out")
    assert {path.relative_to(tmp_path / "out").as_posix() for path in paths} == set(found)
    assert (tmp_path / "out/a.bin").read_bytes() == b"new content"
    assert (tmp_path / "out/deep/er/b.bin").read_bytes() == service.content["d002"]
    assert not list(tmp_path.rglob(".tmp*"))


def test_what_is_there_is_not_fetched_again(client, service, tmp_path):
    service.output("a", b"content")
    data = list_outputs(client, "1").values()
    download(client, data, tmp_path)
    before = len(service.requests)
    download(client, data, tmp_path)
    assert len(service.requests) == before
    (tmp_path / "a").write_bytes(b"damaged")
    download(client, data, tmp_path)
    assert (tmp_path / "a").read_bytes() == b"content"


@pytest.mark.parametrize("more", [{"sha256": "0" * 64}, {"size": 3}])
def test_other_content_is_refused(client, service, tmp_path, more):
    service.output("a", b"content", **more)
    with pytest.raises(OutputMismatch, match=r"datum://d000"):
        download(client, list_outputs(client, "1").values(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../a", "/etc/a", "b/../../a", "..\\a"])
def test_names_that_lead_out(client, service, tmp_path, name):
    service.output(name, b"content")
    with pytest.raises(OutputMismatch, match="leads out"):
        download(client, list_outputs(client, "1").values(), tmp_path)


class TestTheStore:
    @pytest.fixture
    def service(self, service):
        service.direct = False
        return service

    @pytest.fixture
    def data(self, client, service):
        service.output("a", os.urandom(2_000_000))
        return list(list_outputs(client, "1").values())

    def test_it_gets_no_token_and_nobody_sees_the_link(self, client, service, data, tmp_path, caplog):
        caplog.set_level(logging.DEBUG)
        download(client, data, tmp_path)
        (stored,) = [request for request in service.requests if request[1].startswith("/store/")]
        assert "Authorization" not in stored[2] and stored[3] == {"sig": ["signature1"]}
        assert stored[2]["User-Agent"].endswith("(downloader)")
        assert "signature1" not in caplog.text

    def test_an_expired_link_is_asked_for_again(self, client, service, data, tmp_path):
        service.faults = [("GET", "store", 403), ("GET", "store", 503), ("GET", "store", "cut")]
        download(client, data, tmp_path)
        assert service.signature == 4
        assert (tmp_path / "a").read_bytes() == service.content["d000"]

    @pytest.mark.parametrize("ranges", [True, False])
    def test_a_cut_download_goes_on(self, client, service, data, tmp_path, ranges):
        service.ranges = ranges
        service.faults = [("GET", "store", "half")] * 2
        download(client, data, tmp_path)
        assert (tmp_path / "a").read_bytes() == service.content["d000"]
        assert any("Range" in request[2] for request in service.requests)

    def test_redirects(self, client, service, data, tmp_path):
        service.faults = [("GET", "store", (302, {"Location": "/store/d000?sig=other"}))]
        download(client, data, tmp_path)
        assert service.requests[-1][3] == {"sig": ["other"]}

    def test_it_gives_up_in_the_end(self, client, service, data, tmp_path):
        service.faults = [("GET", "store", 403)] * 100
        with pytest.raises(Unreachable, match=r"a \(datum://d000\).*status 403") as raised:
            download(client, data, tmp_path)
        assert "signature" not in str(raised.value)
        assert not list(tmp_path.iterdir())
