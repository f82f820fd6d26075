"""The token of whoever is signed in on this machine, found within ten seconds or not at all."""

import asyncio
import logging
import queue
import threading
import time
from typing import Any

from deeplab.errors import FetchError

HOW_TO_SIGN_IN = (
    "set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or sign in (az login)"
)
_SCOPE = "https://storage.azure.com/.default"
# Seconds. Some members of the chain start programs or ask addresses that never answer.
_DEADLINE = 8.0
# Seconds before its end at which a token is renewed.
_MARGIN = 300.0


class SignedIn:
    """A credential for clients of Azure, made of ``DefaultAzureCredential`` but bounded in time.

    The chain alone may take minutes to find nothing, and Azure's clients ask it again and again: its failure here is no
    error of theirs, so they do not.
    """

    def __init__(self) -> None:
        self._token: Any = None
        self._lock = threading.Lock()

    def token(self) -> Any:
        """A token that holds for some minutes at least, with ``token`` and ``expires_on``.

        Raises:
            FetchError: if nobody is signed in, or the chain does not say in time.
        """
        with self._lock:
            if self._token is None or self._token.expires_on - time.time() < _MARGIN:
                self._token = _ask_chain()
            return self._token

    async def get_token(self, *scopes: str, **options: Any) -> Any:
        """As Azure's asynchronous clients ask for it."""
        return await asyncio.to_thread(self.token)

    async def close(self) -> None:
        """Nothing stays open."""

    async def __aenter__(self) -> "SignedIn":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


def _ask_chain() -> Any:
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        from azure.identity import DefaultAzureCredential

        # What each member of the chain could not do, over many lines.
        logging.getLogger("azure").setLevel(logging.ERROR)
        try:
            with DefaultAzureCredential() as credential:
                answers.put(credential.get_token(_SCOPE))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, name="azure-sign-in", daemon=True).start()
    try:
        answer = answers.get(timeout=_DEADLINE)
    except queue.Empty:
        answer = TimeoutError()
    if isinstance(answer, Exception):
        raise FetchError(f"nobody is signed in to Azure here; {HOW_TO_SIGN_IN}")
    return answer
