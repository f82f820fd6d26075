"""A blob of Azure storage as a web file: every request signed anew, and signed in only where that is needed."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs

from deeplab.data.azure import Account, url_of
from deeplab.data.azure_token import HOW_TO_SIGN_IN, SignedIn
from deeplab.data.web import Refused, Request
from deeplab.errors import ConfigError, FetchError

# A version that knows every header and signature used here; services keep old ones for good.
_API_VERSION = "2021-12-02"
# How long a signature holds that opens one request. Clocks may be some minutes apart.
_SIGNED_FOR = timedelta(hours=1)
# Statuses by which a service may turn a stranger away: it can call missing what it does not show.
_TURNED_AWAY = (401, 403, 404, 409)
_MISSING = ("BlobNotFound", "ContainerNotFound")


@dataclass(frozen=True)
class Blob:
    """A blob and what opens it.

    Attributes:
        account: the account, with its credentials.
        path: ``CONTAINER/BLOB``, not quoted.
        query: what the address carries behind its ``?``: a signature, a version.
        identity: who is signed in here, once that is needed.
    """

    account: Account
    path: str
    query: str = field(default="", repr=False)
    identity: SignedIn | None = None

    @property
    def url(self) -> str:
        """Its address without any signature."""
        return url_of(self.account, self.path)

    def request(self) -> Request:
        """The address and headers of a request, signed now."""
        headers, parts = {"x-ms-version": _API_VERSION}, [self.query]
        if self.account.key:
            parts.append(self._signature(self.account.key))
        elif self.account.sas and self.account.sas != self.query:
            parts.append(self.account.sas)
        elif self.identity is not None:
            headers["Authorization"] = f"Bearer {self.identity.token().token}"
        query = "&".join(filter(None, parts))
        return (f"{self.url}?{query}" if query else self.url), headers

    def _signature(self, key: str) -> str:
        # Takes a quarter of a second and 40 MB, so only where there is a key.
        from azure.storage.blob import generate_blob_sas

        container, _, name = self.path.partition("/")
        asked = parse_qs(self.query)
        try:
            signature: str = generate_blob_sas(
                self.account.name,
                container,
                name,
                snapshot=asked.get("snapshot", [None])[0],
                version_id=asked.get("versionid", [None])[0],
                account_key=key,
                permission="r",
                expiry=datetime.now(timezone.utc) + _SIGNED_FOR,
            )
        except Exception:  # the library wraps what base64 says in one of several errors
            raise ConfigError(
                f"the key of the storage account {self.account.name} is malformed; copy it anew"
            ) from None
        return signature

    def after(self, refused: Refused) -> "Blob":
        """The blob with better credentials, for another try.

        Raises:
            FetchError: if there are none; it says what was tried.
        """
        tried = self._opened_by()
        hidden = refused.status in _TURNED_AWAY and refused.code not in _MISSING
        if not hidden or (tried and refused.status == 404):
            raise refused from None
        shown = f"{self.url}: access denied ({refused.status} {refused.code}".rstrip() + ")"
        if tried:
            raise FetchError(f"{shown} with {tried}; check that it is of this account, still valid and may read")
        if self.account.anonymous:
            raise FetchError(f"{shown} without credentials; unset AZURE_STORAGE_ANON and {HOW_TO_SIGN_IN}")
        if not self.account.endpoint.startswith("https://"):  # nobody's token goes over an open line
            raise FetchError(f"{shown} without credentials; {HOW_TO_SIGN_IN}")
        identity = SignedIn()
        try:
            identity.token()
        except FetchError as error:
            raise FetchError(f"{shown} without credentials, and {error}") from None
        return replace(self, identity=identity)

    def _opened_by(self) -> str | None:
        if self.account.key:
            return "the account key"
        if self.account.sas:
            return "the signature (SAS)"
        return "the identity that is signed in here" if self.identity else None
