"""A catalogue behind the HTTP service, read as if it were here: the same tables as `enumerator.Catalogue` gives."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import pyarrow as pa

from enumerator.catalogue.selection import Selection, check_selection
from enumerator.errors import CatalogueError, InputError
from enumerator.validation import check_positive, check_text

if TYPE_CHECKING:
    from enumerator.catalogue.minimum import Minimum
    from enumerator.problem import Landscape
    from enumerator.statistics.counting import StartSelection

_ARROW = "application/vnd.apache.arrow.stream"


def connect(url: str, token: str | None = None, timeout: float = 60.0) -> RemoteCatalogue:
    """The catalogue behind an HTTP service, with the methods of `Catalogue` that read.

    Args:
        url: Address of the service, such as http://127.0.0.1:8000.
        token: Token of the service, by default that of the environment variable ENUMERATOR_TOKEN.
        timeout: The longest silence of the service, in seconds.

    Returns:
        A client; nothing is sent before you call one of its methods.

    Raises:
        InputError: For an address that does not begin with http:// or https://.
    """
    return RemoteCatalogue(url, token, timeout)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The service sends none; a token must not follow one."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """Follow nothing."""


class RemoteCatalogue:
    """A catalogue read over HTTP: `connect` makes it. Tables are the same as those of `Catalogue`.

    Methods raise InputError for what the service refuses, CatalogueError where it cannot be reached or breaks off.

    Args:
        url: Address of the service.
        token: Token of the service, by default that of the environment variable ENUMERATOR_TOKEN.
        timeout: The longest silence of the service, in seconds.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 60.0) -> None:
        if urllib.parse.urlsplit(check_text("url", url)).scheme not in ("http", "https"):
            raise InputError(f"`url` must begin with http:// or https://, got {url!r}.")
        self.url, self._timeout = url.rstrip("/"), check_positive("timeout", timeout)
        self._token = token or os.environ.get("ENUMERATOR_TOKEN")
        self._opener = urllib.request.build_opener(_NoRedirects)

    def __repr__(self) -> str:
        return f"RemoteCatalogue({self.url!r})"

    def minima(self, **selection: Unpack[Selection]) -> pa.Table:
        """The minima selected, one row each, with their hits, starts and frequency.

        Args:
            **selection: As in `Catalogue.minima`.
        """
        return self._table("minima", selection)

    def saddles(self, **selection: Unpack[Selection]) -> pa.Table:
        """The saddles selected, one row each, with the same counts.

        Args:
            **selection: As in `Catalogue.minima`.
        """
        return self._table("saddles", selection)

    def starts(self, **selection: Unpack[Selection]) -> pa.Table:
        """The starts selected, one row each, whatever their outcome.

        Args:
            **selection: As in `Catalogue.minima`.
        """
        return self._table("starts", selection)

    def campaigns(self, **selection: Unpack[Selection]) -> pa.Table:
        """The campaigns selected, one row each, with their names.

        Args:
            **selection: As in `Catalogue.minima`.
        """
        return self._table("campaigns", selection)

    def landscapes(self, **selection: Unpack[Selection]) -> pa.Table:
        """The landscapes selected, one row each.

        Args:
            **selection: As in `Catalogue.minima`.
        """
        return self._table("landscapes", selection)

    def batches(self, table: str, **selection: Unpack[Selection]) -> Iterator[pa.RecordBatch]:
        """The rows of a table as they arrive, for more of them than fit into memory.

        Args:
            table: Name of the table, such as `starts`.
            **selection: As in `Catalogue.minima`.
        """
        check_selection(selection)
        with self._reader(f"/tables/{table}", selection) as reader:
            yield from reader

    def landscape(self, landscape_id: str) -> Landscape:
        """The landscape with the id `landscape_id`. Raises InputError if there is none."""
        from enumerator.catalogue.records import landscape_among  # as the catalogue itself: not before it is needed

        return landscape_among(self.landscapes(landscape=landscape_id), landscape_id)

    def minimum(self, name: str) -> Minimum:
        """The minimum or saddle with the label or id `name`, as `Catalogue.minimum`; its lists are lists of rows."""
        from enumerator.catalogue.minimum import Minimum

        row = self._json("GET", f"/minima/{urllib.parse.quote(check_text('minimum', name), safe='')}")
        return Minimum(row, partial(self.landscape, row["landscape_id"]))

    def statistics(
        self,
        of: str = "frequencies",
        by: str | None = None,
        quantity: str | None = None,
        more: int | None = None,
        confidence: float = 0.95,
        **selection: Unpack[StartSelection],
    ) -> pa.Table:
        """A table of `enumerator.statistics`, computed by the service from one moment of its catalogue.

        Args:
            of: `frequencies`, `unseen`, `accumulation`, `distributions`, `comparison` or `trend`.
            by: What has a row of frequencies and distributions: `minimum`, `order` or `outcome`.
            quantity: A column of starts for distributions, `flow_time` by default; `global` or `order` for a trend.
            more: Number of further starts that `unseen` predicts for.
            confidence: Of every interval.
            **selection: Which starts, by the keywords of `enumerator.statistics.StartSelection`.
        """
        options = {"by": by, "quantity": quantity, "more": more, "confidence": confidence}
        with self._reader(f"/statistics/{urllib.parse.quote(of, safe='')}", options | selection) as reader:
            return _all(reader)

    def early_stops(
        self, campaign: str, gradient_norm: float | None = None, flow_time: float | None = None
    ) -> pa.Table:
        """Frequencies by order as an early stop would have reported them: `enumerator.statistics.early_stops`.

        Args:
            campaign: Name or id of a campaign.
            gradient_norm: A gradient norm to stop at: 1e-3, 1e-4 or 1e-6.
            flow_time: Or a flow time: 1e2, 1e3, 1e4 or 1e5.
        """
        stop = {"gradient_norm": gradient_norm, "flow_time": flow_time}
        check_text("campaign", campaign)
        with self._reader(f"/early-stops/{urllib.parse.quote(campaign, safe='')}", stop) as reader:
            return _all(reader)

    def sql(self, query: str) -> pa.Table:
        """The result of `query`, one SELECT statement over the tables, as `Catalogue.sql`."""
        body = json.dumps({"query": query}).encode()
        with self._open("POST", "/sql", body, _ARROW) as answer, pa.ipc.open_stream(answer) as reader:
            return _all(reader)

    def identify(self, **network: Any) -> dict[str, Any]:
        """What `enumerator.identify` tells of a network, as a dictionary.

        Args:
            **network: The arguments of `enumerator.identify`: W and V, or Q, R and T, and so on.
        """
        lists = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in network.items()}
        return self._json("POST", "/identify", lists)

    def start(self, **settings: Any) -> dict[str, Any]:
        """Let the service run a campaign, and tell how it stands.

        Args:
            **settings: Keys of a campaign file, such as students, teachers and starts.
        """
        return self._json("POST", "/campaigns", settings)

    def status(self, campaign: str) -> dict[str, Any]:
        """How the campaign with this name or id, `campaign`, stands."""
        return self._json("GET", f"/campaigns/{urllib.parse.quote(campaign, safe='')}")

    def cancel(self, campaign: str) -> dict[str, Any]:
        """Stop a campaign that the service runs, by its name or id, `campaign`."""
        return self._json("POST", f"/campaigns/{urllib.parse.quote(campaign, safe='')}/cancel")

    def _table(self, name: str, selection: Selection) -> pa.Table:
        check_selection(selection)
        with self._reader(f"/tables/{name}", selection) as reader:
            return _all(reader)

    @contextmanager
    def _reader(self, path: str, asked: Mapping[str, Any]) -> Iterator[pa.RecordBatchReader]:
        given = {key: value for key, value in asked.items() if value is not None}
        parameters = {k: v if isinstance(v, str | int | float) else ",".join(v) for k, v in given.items()}
        query = urllib.parse.urlencode(parameters)
        with self._open("GET", f"{path}?{query}", None, _ARROW) as answer, pa.ipc.open_stream(answer) as reader:
            yield reader

    def _json(self, method: str, path: str, content: Any = None) -> dict[str, Any]:
        body = None if content is None else json.dumps(content).encode()
        with self._open(method, path, body, "application/json") as answer:
            return json.load(answer)

    @contextmanager
    def _open(self, method: str, path: str, body: bytes | None, accept: str) -> Iterator[http.client.HTTPResponse]:
        headers = {"Accept": accept} | ({"Content-Type": "application/json"} if method == "POST" else {})
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with closing(self._opener.open(request, timeout=self._timeout)) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            with error:
                message = _message(error)
            kind = InputError if 400 <= error.code < 500 else CatalogueError
            raise kind(message) from None
        except (OSError, http.client.HTTPException, pa.ArrowException) as error:
            # What urllib wraps is told as it is: "[Errno 111] Connection refused".
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            raise CatalogueError(f"cannot read from {self.url}: {' '.join(str(cause).split())}.") from error


def _message(error: urllib.error.HTTPError) -> str:
    """The line that the service gives, or what stands in its place."""
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the service answered {error.code} {error.reason}"


def _all(reader: pa.RecordBatchReader) -> pa.Table:
    return reader.read_all()
