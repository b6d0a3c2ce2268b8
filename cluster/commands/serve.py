"""The command that serves a catalogue over HTTP."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.options import CatalogueArgument, say
from enumerator.errors import InputError
from enumerator.validation import check_count


def add_commands(app: typer.Typer) -> None:
    """Enter the command of this module."""
    app.command("serve", epilog="Example: enumerator serve atlas --port 8000")(_serve)


def _serve(
    catalogue: CatalogueArgument,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file with the token that requests must carry; else $ENUMERATOR_TOKEN."),
    ] = None,
    query_seconds: Annotated[float, typer.Option(help="Seconds that a query may take.")] = 10.0,
    query_memory: Annotated[int, typer.Option(metavar="MIB", help="Memory of a process that answers queries.")] = 1024,
    readers: Annotated[int, typer.Option(help="Processes that answer queries.")] = 3,
    workers: Annotated[int | None, typer.Option(help="Processes at work on a campaign.  [default: all cores]")] = None,
    spool: Annotated[
        int,
        typer.Option(metavar="MIB", help="Disk space, in $TMPDIR, for answers on their way to clients."),
    ] = 4096,
    root_path: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="What a proxy in front takes away from the front of paths, such as /atlas; "
            "else what it says in X-Forwarded-Prefix.",
        ),
    ] = "",
) -> None:
    """Serve a catalogue over HTTP: tables, minima, SQL, identification, and campaigns to start, follow and cancel.

    The description of the interface is at /openapi.json. `enumerator.connect(url)` reads it from Python.
    Ctrl-C ends the service, and stops what it runs; what is stored stays.
    """
    from cluster.service.app import create_app
    from cluster.service.campaign_processes import Runs
    from cluster.service.connections import server_of
    from cluster.service.limits import Limits, check_exposure, read_token
    from cluster.service.middleware import PREFIX

    if query_seconds <= 0 or query_memory < 64 or readers < 1:
        raise InputError("`--query-seconds` must be above 0, `--query-memory` 64 or more, `--readers` 1 or more.")
    if spool < 64:
        raise InputError(f"`--spool` must be 64 or more, got {spool}.")
    if root_path and not PREFIX.fullmatch(root_path):
        raise InputError(f"`--root-path` must be a path such as /atlas, without a slash at its end, got {root_path!r}.")
    if workers is not None:
        check_count("workers", workers)
    token = read_token(token_file)
    check_exposure(host, token)
    memory, space = query_memory * 2**20, spool * 2**20
    limits = Limits(query_seconds=query_seconds, query_bytes=memory, readers=readers, spool_bytes=space)
    app = create_app(catalogue, token, limits, Runs(catalogue, workers), root_path)
    server = server_of(app, app.state.enumerator.connections)
    with _listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        say(f"Serving {catalogue} on http://{shown}:{listener.getsockname()[1]}; Ctrl-C ends it.")
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises InputError where that cannot be."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host}:{port}: {reason}. Choose another --port or --host.") from None
