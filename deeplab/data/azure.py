"""Azure blob storage: which account, container and blob an address means, and how the environment opens them.

This is the one place that turns (address, environment) into an endpoint and credentials. Credentials come from the
environment, first match first:

* a signature (SAS) in the address itself,
* ``AZURE_STORAGE_CONNECTION_STRING``, for the account it names; one with a ``BlobEndpoint`` of its own (Azurite, a
  private domain) stands for every account,
* ``AZURE_STORAGE_ACCOUNT_KEY``, ``AZURE_STORAGE_SAS_TOKEN`` or a service principal (``AZURE_STORAGE_CLIENT_ID``,
  ``…_CLIENT_SECRET``, ``…_TENANT_ID``), for the account of ``AZURE_STORAGE_ACCOUNT_NAME`` where that is set,
* none, and where that is refused whoever is signed in here (``DefaultAzureCredential``), unless ``AZURE_STORAGE_ANON``.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from deeplab.errors import ConfigError

_PREFIX = "AZURE_STORAGE_"
_SCHEMES = ("azure", "az", "abfs", "abfss")
# The public cloud and the two national ones.
_CLOUD_HOST = re.compile(
    r"(?P<account>[a-z0-9-]+)\.(?:blob|dfs)\.(?P<cloud>core\.(?:windows\.net|usgovcloudapi\.net|chinacloudapi\.cn))"
)
# adlfs would otherwise derive it from the limit of open files, and hold that many blocks in memory.
_ADLFS_LIMITS = {"max_concurrency": 4, "connection_timeout": 30, "read_timeout": 60}


@dataclass(frozen=True)
class Address:
    """What an address says by itself.

    Attributes:
        account: the account's name, or None where the environment has to tell it.
        path: ``CONTAINER/BLOB``, not quoted; a folder's or container's path in an address of such.
        query: what stands behind the ``?``: a signature, a version.
        endpoint: the service that the address names, or None where it follows from the account.
    """

    account: str | None
    path: str
    query: str = field(default="", repr=False)
    endpoint: str | None = None


@dataclass(frozen=True)
class Account:
    """A storage account and what opens it: at most one of key, signature and principal.

    Attributes:
        name: its name, which signatures need.
        endpoint: URL of its blob service, without a slash at the end.
        key: the account key, base64.
        sas: a shared access signature: a query without its ``?``.
        principal: a service principal as adlfs takes it.
        anonymous: never to sign in.
    """

    name: str
    endpoint: str
    key: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)
    principal: Mapping[str, str] | None = field(default=None, repr=False)
    anonymous: bool = False


def account_name(url: str) -> str:
    """The account that an ``az://`` (``azure://``, ``abfs://``, https) address is in.

    Raises:
        ConfigError: if neither the address nor the environment tells.
    """
    return find_account(_parsed(url)).name


def storage_options(url: str) -> dict[str, Any]:
    """What fsspec's driver for ``az://`` and ``abfs://`` needs to open an address: endpoint and credentials.

    The driver reads the environment itself where it is left alone, also for another account than the address names;
    these options leave it no room for that.

    Raises:
        ConfigError: if the account is not known, or its credentials are malformed.
    """
    return driver_options(find_account(_parsed(url)))


def driver_options(account: Account) -> dict[str, Any]:
    """The same for an account that was found.

    Raises:
        ConfigError: if the environment's connection string is another account's.
    """
    if account.key or account.sas or account.anonymous:
        return {"connection_string": _connection_string(account), **_ADLFS_LIMITS}
    if _variable("CONNECTION_STRING"):
        if _names_account(_connection_settings(), account.name):
            return {"connection_string": _connection_string(account), **_ADLFS_LIMITS}
        raise ConfigError(
            f"{_PREFIX}CONNECTION_STRING is for another account than {account.name}; unset it, or name its account"
        )
    host = account.endpoint.partition("://")[2]
    options = {"account_name": account.name, "account_host": host, **_ADLFS_LIMITS}
    if account.principal:
        return {**options, **account.principal}
    from deeplab.data.azure_token import SignedIn

    return {**options, "credential": SignedIn()}


def parse(url: str, endpoint: str | None = None) -> Address | None:
    """Read an address; None if it is not one of blob storage.

    Args:
        url: ``azure://ACCOUNT/CONTAINER/BLOB``, ``az://`` or ``abfs[s]://`` with ``CONTAINER/BLOB`` or
            ``CONTAINER@HOST/BLOB``, or ``https://ACCOUNT.blob…/CONTAINER/BLOB``.
        endpoint: URL of a blob service; an address below it is one of blob storage too.
    """
    scheme, mark, rest = url.partition("://")
    scheme = scheme.lower()
    if not mark:
        return None
    path, query = _without_query(rest)
    if scheme == "azure":
        account, _, path = path.partition("/")
        return Address(account, path, query)
    if scheme in _SCHEMES:
        return _parse_driver_form(path, query)
    for place in filter(None, (endpoint, _connection_settings().get("blobendpoint"))):
        if path.startswith(place.partition("://")[2].rstrip("/") + "/"):
            below = path.removeprefix(place.partition("://")[2].rstrip("/") + "/")
            return Address(_account_of(place), unquote(below), query, place.rstrip("/"))
    host, _, path = path.partition("/")
    cloud = _CLOUD_HOST.fullmatch(host.lower())
    if scheme not in ("http", "https") or cloud is None:
        return None
    return Address(cloud["account"], unquote(path), query, f"https://{_blob_host(cloud)}")


def find_account(address: Address, endpoint: str | None = None) -> Account:
    """The account behind an address, with the credentials that the environment has for it.

    Args:
        address: what was parsed.
        endpoint: URL of the blob service, whatever the address and the environment say.

    Raises:
        ConfigError: if the account is not known, or a setting is malformed.
    """
    settings = _connection_settings()
    if not _names_account(settings, address.account):
        settings = {}
    name = address.account or settings.get("accountname") or _variable("ACCOUNT_NAME") or _variable("ACCOUNT")
    place = endpoint or settings.get("blobendpoint") or address.endpoint
    if not place and not name:
        raise ConfigError(
            f"the address names no storage account; write azure://ACCOUNT/CONTAINER/BLOB, or set {_PREFIX}"
            f"CONNECTION_STRING or {_PREFIX}ACCOUNT_NAME"
        )
    if not place:
        scheme, suffix = settings.get("defaultendpointsprotocol", "https"), settings.get("endpointsuffix")
        place = f"{scheme}://{name}.blob.{suffix or 'core.windows.net'}"
    if urlsplit(place).scheme not in ("http", "https") or not urlsplit(place).hostname:
        raise ConfigError(f"{place}: not the address of a blob service; give http(s)://HOST[:PORT][/ACCOUNT]")
    name = settings.get("accountname") or _account_of(place) or name or ""
    return Account(name, place.rstrip("/"), **_credentials(name, address, settings))


def url_of(account: Account, path: str) -> str:
    """The address of a blob, without any signature."""
    return f"{account.endpoint}/{quote(path)}"


def _credentials(name: str, address: Address, settings: Mapping[str, str]) -> dict[str, Any]:
    if "sig=" in address.query:
        return {"sas": address.query}
    if settings.get("accountkey"):
        return {"key": settings["accountkey"]}
    if settings.get("sharedaccesssignature"):
        return {"sas": settings["sharedaccesssignature"].lstrip("?")}
    own = _variable("ACCOUNT_NAME") or _variable("ACCOUNT")
    if not own or own in (name, address.account):
        if key := _variable("ACCOUNT_KEY") or _variable("KEY"):
            return {"key": key}
        if sas := _variable("SAS_TOKEN"):
            return {"sas": sas.lstrip("?")}
        names = ("client_id", "client_secret", "tenant_id")
        principal = {key: _variable(key.upper()) for key in names}
        if all(principal.values()):
            return {"principal": principal}
    return {"anonymous": _variable("ANON").lower() not in ("", "0", "f", "false")}


def _variable(name: str) -> str:
    return os.environ.get(f"{_PREFIX}{name}", "").strip()


def check_connection_string(text: str) -> None:
    """Refuse a connection string that cannot be one.

    Raises:
        ConfigError: with what is expected.
    """
    _settings_of(text)


def _connection_settings() -> dict[str, str]:
    """The environment's connection string's settings."""
    return _settings_of(_variable("CONNECTION_STRING"))


def _settings_of(text: str) -> dict[str, str]:
    """A connection string's settings, by their names in lower case."""
    settings = {}
    for part in filter(None, text.split(";")):
        name, mark, value = part.partition("=")
        if not mark:
            raise ConfigError(
                f"{_PREFIX}CONNECTION_STRING: malformed; expected NAME=VALUE pairs between semicolons, such as "
                "AccountName=…;AccountKey=…"
            )
        settings[name.strip().lower()] = value.strip()
    return settings


def _names_account(settings: Mapping[str, str], account: str | None) -> bool:
    """Whether a connection string may serve an account: its own, or any through an endpoint that is not Azure's."""
    place = settings.get("blobendpoint", "")
    if place and _CLOUD_HOST.fullmatch(urlsplit(place).hostname or "") is None:
        return True
    return account in (None, settings.get("accountname") or _account_of(place))


def _account_of(endpoint: str) -> str | None:
    """The account that a service's URL names: in its host in Azure, in its path elsewhere."""
    parts = urlsplit(endpoint)
    cloud = _CLOUD_HOST.fullmatch(parts.hostname or "")
    return cloud["account"] if cloud else parts.path.strip("/").partition("/")[0] or None


def _blob_host(cloud: "re.Match[str]") -> str:
    return f"{cloud['account']}.blob.{cloud['cloud']}"


def _parse_driver_form(path: str, query: str) -> Address:
    first, _, rest = path.partition("/")
    container, mark, host = first.partition("@")
    cloud = _CLOUD_HOST.fullmatch(host.lower() if mark else first.lower())
    if cloud is None:
        return Address(None, path, query)
    path = f"{container}/{rest}" if mark else rest
    return Address(cloud["account"], path, query, f"https://{_blob_host(cloud)}")


def _without_query(text: str) -> tuple[str, str]:
    """Split off a signature or version; a ``?`` elsewhere belongs to the blob's name."""
    path, _, query = text.rpartition("?")
    return (path, query) if path and parse_qs(query) else (text, "")


def _parsed(url: str) -> Address:
    address = parse(url)
    if address is None:
        raise ConfigError(f"{url.partition('?')[0]}: not an address of blob storage; give az://CONTAINER/PREFIX")
    return address


def _connection_string(account: Account) -> str:
    parts = [f"BlobEndpoint={account.endpoint}", f"AccountName={account.name}"]
    if account.key:
        parts.append(f"AccountKey={account.key}")
    if account.sas:
        parts.append(f"SharedAccessSignature={account.sas}")
    return ";".join(parts)
