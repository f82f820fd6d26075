"""``deeplab fetch`` from a real blob service: every address, every credential, every accident on the way."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from deeplab.cli import main
from tests.azurite import ACCOUNT, Azurite, needs_azurite, running
from tests.faulty_proxy import FaultyProxy, in_front_of
from tests.valohai_server.inputs import AZURITE_KEY

pytestmark = needs_azurite

MIB = 1 << 20
NAME = "a b#1.zip"
CLOUD = f"{ACCOUNT}.blob.core.windows.net"
SPELLINGS = [
    f"azure://{ACCOUNT}/{{container}}/{NAME}",
    f"az://{{container}}/{NAME}",
    f"abfs://{{container}}/{NAME}",
    f"abfs://{{container}}@{ACCOUNT}.dfs.core.windows.net/{NAME}",
    f"abfss://{{container}}@{CLOUD}/{NAME}",
    f"az://{CLOUD}/{{container}}/{NAME}",
    f"https://{CLOUD}/{{container}}/a%20b%231.zip",
    "{endpoint}/{container}/a%20b%231.zip",
]


class Fetched(NamedTuple):
    """What one run of the command did."""

    code: int
    error: str
    folder: Path
    seconds: float

    @property
    def content(self) -> bytes:
        (product,) = json.loads((self.folder / "manifest.json").read_text())["outputs"]
        return (self.folder / product["path"]).read_bytes()

    @property
    def nothing_visible(self) -> bool:
        return not self.folder.exists() or not [path for path in self.folder.iterdir() if path.name[0] != "."]


Fetch = Callable[..., Fetched]


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that says nothing of Azure, nor where somebody signed in."""
    for name in list(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_", "MSI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def fetch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fetch:
    """Run the command into a folder of the test."""

    def run(source: str, folder: str = "fetched", **flags: str) -> Fetched:
        capsys.readouterr()
        begun = time.monotonic()
        output = tmp_path / folder
        given = [f"--{name}={value}" for name, value in flags.items()]
        code = main(["fetch", f"--source={source}", f"--output_dir={output}", *given])
        return Fetched(code, capsys.readouterr().err, output, time.monotonic() - begun)

    return run


@pytest.fixture(scope="module")
def content() -> bytes:
    """Bytes that no two ranges share."""
    return b"".join(hashlib.sha256(str(index).encode()).digest() * 2048 for index in range(40 * 16))


@pytest.fixture(scope="module")
def public(azurite: Azurite, content: bytes) -> str:
    """A container for everybody with a small blob and a large one of 40 MiB."""
    container = azurite.create_container(public=True)
    azurite.upload(container, NAME, b"for everybody")
    azurite.upload(container, "large.bin", content)
    return container


@pytest.fixture(scope="module")
def private(azurite: Azurite) -> str:
    """A container for those who may."""
    container = azurite.create_container()
    azurite.upload(container, NAME, b"for some")
    return container


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultyProxy]:
    """A way to the service that can fail."""
    with in_front_of(azurite.endpoint) as between:
        yield between


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("override", ["flag", "connection string"])
def test_every_form_of_address(
    azurite: Azurite, private: str, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, spelling: str, override: str
) -> None:
    flags = {}
    if override == "flag":
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY)
        flags = {"azure_endpoint": azurite.endpoint}
    else:
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    fetched = fetch(spelling.format(container=private, endpoint=azurite.endpoint), **flags)
    assert fetched.code == 0, fetched.error
    assert (fetched.content, (fetched.folder / NAME).is_file()) == (b"for some", True)


def test_a_public_container_needs_no_credentials_and_no_time(azurite: Azurite, public: str, fetch: Fetch) -> None:
    fetched = fetch(f"azure://{ACCOUNT}/{public}/{NAME}", azure_endpoint=azurite.endpoint)
    assert (fetched.code, fetched.content) == (0, b"for everybody")
    assert fetched.seconds < 3


@pytest.mark.parametrize(
    "kind", ["key", "connection string", "signature", "signature in the address", "endpoint and signature"]
)
def test_every_kind_of_credential(
    azurite: Azurite, private: str, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    signature = azurite.sign(private, NAME)
    source, flags = f"azure://{ACCOUNT}/{private}/{NAME}", {"azure_endpoint": azurite.endpoint}
    variables = {
        "key": {"ACCOUNT_NAME": ACCOUNT, "ACCOUNT_KEY": AZURITE_KEY},
        "connection string": {"CONNECTION_STRING": azurite.connection_string},
        "signature": {"SAS_TOKEN": signature},
        "endpoint and signature": {
            "CONNECTION_STRING": f"BlobEndpoint={azurite.endpoint};SharedAccessSignature={signature}"
        },
    }
    for name, value in variables.get(kind, {}).items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
    if kind == "signature in the address":
        source = f"{azurite.endpoint}/{private}/a%20b%231.zip?{signature}"
    fetched = fetch(source, **({} if "endpoint" in kind or "string" in kind else flags))
    assert (fetched.code, fetched.error.count("sig=")) == (0, 0), fetched.error
    assert fetched.content == b"for some"
    assert "sig=" not in (fetched.folder / "manifest.json").read_text()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ANON": "true"}, "access denied (403 AuthorizationFailure) without credentials; unset AZURE_STORAGE_ANON"),
        ({}, "access denied (403 AuthorizationFailure) without credentials; set AZURE_STORAGE_CONNECTION_STRING"),
        ({"ACCOUNT_KEY": base64.b64encode(b"another").decode()}, "access denied (403 AuthorizationFailure) with the "),
        ({"ACCOUNT_KEY": "cut"}, f"the key of the storage account {ACCOUNT} is malformed"),
    ],
)
def test_who_may_not_read(
    azurite: Azurite, private: str, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, variables: Any, message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
    fetched = fetch(f"azure://{ACCOUNT}/{private}/{NAME}", azure_endpoint=azurite.endpoint)
    assert fetched.code in (1, 2) and fetched.nothing_visible
    assert message in fetched.error and len(fetched.error.splitlines()) == 1, fetched.error


@pytest.mark.parametrize("wrong", ["expired", "of another blob"])
def test_a_signature_that_does_not_fit(azurite: Azurite, private: str, fetch: Fetch, wrong: str) -> None:
    signature = azurite.sign(private, NAME, hours=-1) if wrong == "expired" else azurite.sign(private, "other.zip")
    fetched = fetch(f"azure://{ACCOUNT}/{private}/{NAME}?{signature}", azure_endpoint=azurite.endpoint)
    assert (fetched.code, fetched.nothing_visible) == (1, True)
    assert "access denied (403" in fetched.error and "with the signature (SAS)" in fetched.error
    assert "sig=" not in fetched.error


def test_a_missing_blob(azurite: Azurite, public: str, fetch: Fetch) -> None:
    fetched = fetch(f"azure://{ACCOUNT}/{public}/none.zip", azure_endpoint=azurite.endpoint)
    assert (fetched.code, fetched.nothing_visible) == (1, True)
    assert f"{public}/none.zip: no such file; check the address" in fetched.error
    assert fetched.seconds < 3


def test_a_chain_that_finds_nobody_ends_soon(tls: Azurite, fetch: Fetch) -> None:
    container = tls.create_container()
    tls.upload(container, NAME, b"for some")
    fetched = fetch(f"azure://{ACCOUNT}/{container}/{NAME}", azure_endpoint=tls.endpoint)
    assert (fetched.code, fetched.nothing_visible) == (1, True)
    assert "nobody is signed in to Azure here; set AZURE_STORAGE_CONNECTION_STRING" in fetched.error
    assert fetched.seconds <= 10


def test_whoever_is_signed_in_is_let_in(tls: Azurite, fetch: Fetch, signed_in: list[str]) -> None:
    container = tls.create_container()
    tls.upload(container, NAME, b"for some")
    fetched = fetch(f"azure://{ACCOUNT}/{container}/{NAME}", azure_endpoint=tls.endpoint)
    assert fetched.code == 0, fetched.error
    assert (fetched.content, signed_in) == (b"for some", ["https://storage.azure.com"])


def test_every_connection_is_cut(proxy: FaultyProxy, public: str, content: bytes, fetch: Fetch) -> None:
    proxy.cut_after = 3 * MIB
    fetched = fetch(f"azure://{ACCOUNT}/{public}/large.bin", azure_endpoint=proxy.endpoint)
    assert fetched.code == 0, fetched.error
    assert fetched.content == content
    assert proxy.sent <= len(content)
    assert len(proxy.ranges) >= len(content) / proxy.cut_after


def test_a_busy_server_is_asked_again_when_it_says(
    proxy: FaultyProxy, public: str, content: bytes, fetch: Fetch
) -> None:
    source, flags = f"azure://{ACCOUNT}/{public}/large.bin", {"azure_endpoint": proxy.endpoint}
    before = fetch(source, "before", **flags)
    proxy.busy = 1
    fetched = fetch(source, **flags)
    assert fetched.content == content
    assert 1 <= fetched.seconds <= before.seconds + 3


def test_a_response_that_stalls(
    proxy: FaultyProxy, public: str, content: bytes, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deeplab.data.web.READ_TIMEOUT", 2.0)
    proxy.stall_after = MIB
    fetched = fetch(f"azure://{ACCOUNT}/{public}/large.bin", azure_endpoint=proxy.endpoint)
    assert fetched.content == content
    assert fetched.seconds <= 8
    assert proxy.sent <= len(content) + MIB


def test_a_server_that_comes_back(proxy: FaultyProxy, public: str, content: bytes, fetch: Fetch) -> None:
    def restart() -> None:
        threading.Thread(target=proxy.vanish).start()
        threading.Timer(4, proxy.start).start()

    proxy.at(10 * MIB, restart)
    fetched = fetch(f"azure://{ACCOUNT}/{public}/large.bin", azure_endpoint=proxy.endpoint)
    assert fetched.code == 0, fetched.error
    assert fetched.content == content
    assert fetched.seconds >= 3
    assert proxy.sent <= len(content) + 4 * MIB


def test_a_server_that_stays_away(
    proxy: FaultyProxy, public: str, content: bytes, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deeplab.data.transfer.PATIENCE", 2.0)
    source, flags = f"azure://{ACCOUNT}/{public}/large.bin", {"azure_endpoint": proxy.endpoint}
    proxy.at(10 * MIB, lambda: threading.Thread(target=proxy.vanish).start())
    gone = fetch(source, **flags)
    assert (gone.code, gone.nothing_visible) == (1, True)
    assert "check address and network" in gone.error and "the same command goes on from there" in gone.error
    proxy.start()
    sent = proxy.sent
    assert fetch(source, **flags).content == content
    assert proxy.sent - sent <= len(content) - 8 * MIB


def test_a_blob_replaced_meanwhile(proxy: FaultyProxy, azurite: Azurite, content: bytes, fetch: Fetch) -> None:
    container = azurite.create_container(public=True)
    azurite.upload(container, "large.bin", content * 3)
    proxy.at(10 * MIB, lambda: azurite.upload(container, "large.bin", content))
    source, flags = f"azure://{ACCOUNT}/{container}/large.bin", {"azure_endpoint": proxy.endpoint}
    replaced = fetch(source, **flags)
    assert (replaced.code, replaced.nothing_visible) == (1, True)
    assert "was replaced while it was being downloaded; run the same command again" in replaced.error
    again = fetch(source, **flags)
    assert again.code == 0, again.error
    assert again.content == content


def _command(source: str, folder: Path, endpoint: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "deeplab", "fetch", f"--source={source}", f"--output_dir={folder}"]
    return subprocess.Popen([*command, f"--azure_endpoint={endpoint}"], stderr=subprocess.PIPE, text=True)


def test_a_killed_download_goes_on(
    proxy: FaultyProxy, azurite: Azurite, content: bytes, fetch: Fetch, tmp_path: Path
) -> None:
    container, size = azurite.create_container(public=True), 6 * len(content)
    azurite.upload(container, "huge.bin", content * 6)
    source = f"azure://{ACCOUNT}/{container}/huge.bin"
    reached = threading.Event()
    proxy.at(size * 2 // 3, reached.set)
    proxy.rate = 80 * MIB
    with _command(source, tmp_path / "fetched", proxy.endpoint) as process:
        assert reached.wait(60)
        process.kill()
    had = proxy.sent
    proxy.rate = None
    fetched = fetch(source, azure_endpoint=proxy.endpoint)
    assert fetched.content == content * 6
    assert had >= size * 2 // 3
    assert proxy.sent - size <= 64 * MIB


def test_two_fetches_at_once_bring_it_once(
    proxy: FaultyProxy, public: str, content: bytes, fetch: Fetch, tmp_path: Path
) -> None:
    source = f"azure://{ACCOUNT}/{public}/large.bin"
    proxy.rate = 10 * MIB
    reached = threading.Event()
    proxy.at(MIB, reached.set)
    with _command(source, tmp_path / "fetched", proxy.endpoint) as process:
        assert reached.wait(60)
        second = fetch(source, azure_endpoint=proxy.endpoint)
        assert process.wait() == 0
    assert second.code == 0, second.error
    assert second.content == content
    assert proxy.sent == len(content)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """The service behind a certificate of its own, that lets in whoever bears a token."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = _certificate(folder)
    options = (f"--cert={certificate}", f"--key={key}", "--oauth=basic")
    with running(folder / "blobs", *options, certificate=certificate) as service, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        yield service


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine, signed by itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return paths


@pytest.fixture
def signed_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A machine with an identity of its own, as Azure's services have; lists what tokens were asked for."""
    asked: list[str] = []

    class Identity(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            resource = dict(part.split("=") for part in urlsplit(self.path).query.split("&"))["resource"]
            asked.append(resource.replace("%3A", ":").replace("%2F", "/"))
            expiry = int(time.time()) + 3600
            token = {"access_token": _token(expiry), "expires_on": str(expiry), "token_type": "Bearer"}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(token).encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Identity) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_port}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "secret")
        yield asked
        server.shutdown()


def _token(expiry: int) -> str:
    """A token whose claims are right; the service does not check who signed it."""
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
        "iat": expiry - 7200,
        "nbf": expiry - 7200,
        "exp": expiry,
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])
