"""Which Valohai, as whom, and which project.

Each part comes from the first place that has it: what the caller gives (a flag, a Prefect block), the environment
(VALOHAI_TOKEN, VALOHAI_HOST, VALOHAI_PROJECT), the file that ``vh login`` and ``vh project link`` write.
A token never goes to a host that it was not given for.
"""

import json
import os
import re
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from tasks.valohai.errors import NotConfigured

CLOUD_HOST = "https://app.valohai.com"


@dataclass(frozen=True)
class Connection:
    """A resolved connection; its text form does not show the token.

    Attributes:
        host: scheme, name and port, such as ``https://app.valohai.com``.
        token: of the user.
        project: UUID or name of the project.
        verify: whether the certificate is checked, or the path of a file with further authorities.
    """

    host: str
    token: SecretStr
    project: str
    verify: bool | str = True

    @classmethod
    def resolve(
        cls,
        *,
        host: str | None = None,
        token: str | SecretStr | None = None,
        project: str | None = None,
        verify: bool | str | None = None,
        directory: Path | None = None,
    ) -> "Connection":
        """Find what is not given.

        Args:
            host: address of the service.
            token: of the user.
            project: UUID or name.
            verify: see the class.
            directory: where ``vh project link`` was called, or below; the current one by default.

        Raises:
            NotConfigured: with what to set.
        """
        token = SecretStr(token) if isinstance(token, str) else token  # tracebacks may show the names in here
        login = _read_login()
        secret, source = _token(token, login)
        wanted = host or os.environ.get("VALOHAI_HOST")
        # As vh does: a token from elsewhere than the file goes to the cloud unless a host is named.
        address = normalised_host(wanted or (_text(login, "host") if source == "login" else None) or CLOUD_HOST)
        known = normalised_host(_text(login, "host") or CLOUD_HOST) if login else None
        if source == "login" and address != known:
            raise NotConfigured(
                f"{address}: the token of `vh login` is for {known}; set VALOHAI_TOKEN for this host, or log in there"
            )
        if verify is None:
            verify = login.get("verify_ssl", True) if address == known else True
        found = project or os.environ.get("VALOHAI_PROJECT")
        if not found and address == known:
            found = _linked_project(login, directory)
        if not found:
            raise NotConfigured(
                "no Valohai project: set VALOHAI_PROJECT to its id or name, or run `vh project link` in this folder"
            )
        return cls(host=address, token=secret, project=found, verify=verify)

    def tls(self) -> ssl.SSLContext | bool:
        """What the HTTP client takes for ``verify``.

        Raises:
            NotConfigured: for a file of authorities that cannot be read.
        """
        if isinstance(self.verify, bool):
            return self.verify
        try:
            return ssl.create_default_context(cafile=self.verify)
        except OSError as error:
            raise NotConfigured(
                f"{self.verify}: no certificates can be read there ({error}); correct `verify`"
            ) from None


def normalised_host(host: str) -> str:
    """Scheme, name and port of an address.

    Raises:
        NotConfigured: for an address with a path, a user or another scheme.
    """
    address = host.strip() if "://" in host else f"https://{host.strip()}"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.path.strip("/") or parts.query or parts.username:
        # What was given is not repeated: somebody may have put a token into it.
        raise NotConfigured("the Valohai host must be an address like https://app.valohai.com, without a path or user")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _token(given: SecretStr | None, login: Mapping[str, Any]) -> tuple[SecretStr, str]:
    """The token, and which of the three places had it."""
    environment, file = SecretStr(os.environ.get("VALOHAI_TOKEN", "")), login.get("token")
    for secret, source in ((given, "given"), (environment, "environment"), (file, "login")):
        if secret is not None and secret.get_secret_value():
            return _clean(secret), source
    raise NotConfigured(
        "no Valohai token: set VALOHAI_TOKEN (made in the profile's settings), run `vh login`, or name a Prefect block"
    )


def _clean(secret: SecretStr) -> SecretStr:
    clean = SecretStr(secret.get_secret_value().strip())
    if not re.fullmatch(r"[!-~]+", clean.get_secret_value()):
        raise NotConfigured("the Valohai token holds blanks or other characters that no token has; copy it again")
    return clean


def _text(login: Mapping[str, Any], name: str) -> str | None:
    value = login.get(name)
    return value if isinstance(value, str) and value else None


def login_file() -> Path:
    """Where ``vh`` keeps its login and its links."""
    if own := os.environ.get("VALOHAI_CONFIG_DIR"):
        return Path(own) / "config.json"
    if base := os.environ.get("XDG_CONFIG_HOME"):
        return Path(base) / "valohai-cli" / "config.json"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "valohai-cli" / "config.json"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "valohai-cli" / "config.json"
    return Path.home() / ".config" / "valohai-cli" / "config.json"


def _read_login() -> dict[str, Any]:
    path = login_file()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise NotConfigured(f"{path}: cannot be read; run `vh login` again, or remove it") from None
    if not isinstance(content, dict):
        return {}
    token = content.pop("token", None)
    return {**content, "token": SecretStr(token)} if isinstance(token, str) else content


def _linked_project(login: Mapping[str, Any], directory: Path | None) -> str | None:
    """The project that a folder, or the nearest of those around it, is linked to."""
    links = login.get("links")
    if not isinstance(links, dict):
        return None
    start = Path(directory or os.environ.get("VALOHAI_PROJECT_DIR") or ".").resolve()
    for folder in (start, *start.parents):
        link = links.get(str(folder))
        if isinstance(link, dict) and link.get("id"):
            return str(link["id"])
    return None
