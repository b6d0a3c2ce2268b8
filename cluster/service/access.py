"""Who may ask: who has the token, or calls this machine by its name; never the pages of other sites in a browser."""

from __future__ import annotations

import re
from typing import NamedTuple

from cluster.service.limits import is_authorised, is_loopback

# Asked by those who watch whether the service lives; tells nothing else.
OPEN_PATHS = ("/health",)
# Methods that change nothing; all others want JSON, which a browser sends to another site only if that site agrees.
_SAFE = ("GET", "HEAD", "OPTIONS")
_JSON = "application/json"
# What a browser says of a request that comes from a page of this very service, or from its user.
_OWN_SITES = ("same-origin", "none")


class Headers:
    """The headers of a request; names are in lower case."""

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs

    def all(self, name: str) -> list[str]:
        """All values of a header, in the order in which they came."""
        return [value.decode("latin-1").strip() for key, value in self._pairs if key.lower() == name.encode()]

    def get(self, name: str, default: str = "") -> str:
        """The last value of a header."""
        return (self.all(name) or [default])[-1]


_HOST = re.compile(r"(\[(?P<address>[^\]]*)\]|(?P<name>[^:]*))(:[0-9]*)?")


class Refusal(NamedTuple):
    """An answer to who may not ask: the HTTP status, one line, and headers."""

    status: int
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


def refusal(method: str, path: str, headers: Headers, token: str | None) -> Refusal | None:
    """Why a request is refused; None if it may be asked. `path` is the one of the route.

    Without a token only names of this machine are answered to. This shuts out web pages that have made a browser
    believe that their own name is this machine (DNS rebinding): they are of the same origin as what they ask then.
    """
    host = headers.get("host")
    if token is None and not is_loopback(_name(host)):
        return Refusal(421, "without a token this service answers to localhost and 127.0.0.1 only.")
    if any(_is_foreign(origin, host) for origin in headers.all("origin")) or any(
        site.lower() not in _OWN_SITES for site in headers.all("sec-fetch-site")
    ):
        return Refusal(
            403, "pages of other sites may not ask this service: ask it from a program, or by its own address."
        )
    if path not in OPEN_PATHS and not is_authorised(headers.get("authorization"), token):
        message = "a token is needed: send the header `Authorization: Bearer TOKEN`."
        return Refusal(401, message, ((b"www-authenticate", b"Bearer"),))
    kind = headers.get("content-type")
    if method not in _SAFE and kind.partition(";")[0].strip().lower() != _JSON:
        return Refusal(
            415, f"expected the header `Content-Type: {_JSON}`, got {kind[:80]!r}: send it, with a body or not."
        )
    return None


def _is_foreign(origin: str, host: str) -> bool:
    """Whether an Origin is another than that of the host; the scheme is that of the proxy in front, if there is one."""
    scheme, _, name = origin.lower().partition("://")
    return scheme not in ("http", "https") or name != host.lower()


def _name(host: str) -> str:
    """The name in a Host header, in small letters and without the port; nothing where it is no name."""
    found = _HOST.fullmatch(host.lower())
    return (found["address"] or found["name"] or "") if found else ""
