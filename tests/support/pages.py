"""The pages of the documents as programs: their blocks in order, at sizes that a test can afford."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from jaxtyping import config as jaxtyping_config

from tests.support.object_store import object_store
from tests.support.project import PROJECT

# Starts that a run on a page gets here, and flow time of one-pass SGD.
STARTS, FLOW_TIME = 60, 10
# Seconds that the commands of a block may take together.
_PATIENCE = 400
# Languages of blocks that run, and of those that do not: output, and what needs a cloud or another program.
RUN = {"sh", "python", "toml"}
SHOWN = {"text", "console", "json", "sql", "r", "julia", "yaml", "html"}
# What stays at work while the page goes on: its port, where it answers once it does, the option that names another
# port, and what it says when all of it is up.
_SERVERS = {
    "enumerator serve": ("8000", "/health", "--port", "Serving"),
    "ray start": ("8265", "/api/version", "--dashboard-port", "Ray runtime started"),
}
# The port of an object store, which is there when a page first names it, with the bucket `bucket`.
_STORE = "9000"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page on which it begins."""

    language: str
    text: str
    line: int


def pages() -> list[Path]:
    """All that is written by hand: the README and the site's pages but for the reference, which is generated."""
    found = [path for path in (PROJECT / "docs").rglob("*.md") if "reference" not in path.parts]
    return [PROJECT / "README.md", *sorted(found)]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, indented ones too."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        indent, language, inside = match.groups()
        lines = [line.removeprefix(indent) for line in inside.splitlines()]
        found.append(Block(language, "\n".join(lines) + "\n", text.count("\n", 0, match.start()) + 1))
    return found


def made_small(text: str) -> str:
    """The same with fewer starts, one worker, shorter runs of SGD, and a verification of two starts, not twenty."""

    def fewer(match: re.Match[str]) -> str:
        return match[1] + str(min(int(match[2].replace("_", "")), STARTS))

    text = re.sub(r"(\bstarts(?: ?= ?|\": )|--starts )([\d_]+)", fewer, text)
    text = text.replace("enumerator run ", "enumerator run --workers 1 ")
    text = re.sub(r"(enumerator verify \w+)$", r"\1 --sample 2", text, flags=re.MULTILINE)
    return re.sub(r"(one-pass-sgd .*--flow-time )(\d+)", lambda m: m[1] + str(min(int(m[2]), FLOW_TIME)), text)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


class Reader:
    """Somebody who reads a page and does all that it says, in a folder that looks like a clone."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.names: dict[str, Any] = {"__name__": "__page__"}
        self.servers: list[subprocess.Popen[bytes]] = []
        self.stores = ExitStack()
        self.ports: dict[str, str] = {}
        # A page that is answered with an error does not do what it says.
        (folder / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")
        self.environment["CURL_HOME"] = str(folder)
        # Who comes to a page has installed the software, and works in its environment.
        self.environment["PATH"] = f"{folder}/.venv/bin:{self.environment['PATH']}"
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "scripts").symlink_to(PROJECT / "scripts")
        examples = folder / "docs" / "examples"
        shutil.copytree(PROJECT / "docs" / "examples", examples)
        for path in examples.glob("*.toml"):
            path.write_text(made_small(path.read_text()))

    def close(self) -> None:
        """Stop what stayed at work, the last first."""
        for server in reversed(self.servers):
            server.terminate()
            server.wait(60)
        self.stores.close()

    def follow(self, block: Block, page: Path) -> None:
        """Do what a block says. Raises what Python raises, or AssertionError with what a command said."""
        text = made_small(self._elsewhere(block.text))
        where = f"{page.relative_to(PROJECT)}, line {block.line}"
        if block.language == "python":
            # Shapes and types are checked in the tests only: a reader's Python takes NumPy's arrays everywhere.
            with patch.dict(os.environ, self.environment), patch.object(jaxtyping_config, "jaxtyping_disable", True):
                exec(compile(text, where, "exec"), self.names)
        elif block.language == "toml":
            name = re.match(r"# (\S+\.toml)\n", text)
            assert name, f"{where}: the first line of a toml block is its name, as a comment."
            (self.folder / name[1]).write_text(text)
        else:
            self._type(text, where)

    def _elsewhere(self, text: str) -> str:
        """The same at ports that nobody else has, and without the installation, which was done."""
        text = re.sub(r"\b127\.0\.0\.1:(\d+)", lambda match: f"127.0.0.1:{self._port(match[1])}", text)
        quickstart = (PROJECT / "scripts" / "quickstart").read_text().rstrip().rpartition("\n")[2]
        quickstart = quickstart.replace('exec "$venv/', '".venv/').removesuffix(' "$@"')
        assert quickstart.startswith('".venv/bin/enumerator" run ')
        return re.sub(r"^scripts/test\b.*$", "true", text.replace("scripts/quickstart", quickstart), flags=re.MULTILINE)

    def _port(self, port: str) -> str:
        """A port that nobody else has, in the place of one on the page."""
        if port not in self.ports:
            is_store = port == _STORE
            self.ports[port] = str(self.stores.enter_context(object_store()) if is_store else _free_port())
        return self.ports[port]

    def _type(self, text: str, where: str) -> None:
        """Type lines into a terminal; one that stays at work gets a terminal of its own."""
        waiting: list[str] = []
        for line in re.findall(r"(?:[^\n]*\\\n)*[^\n]*\n", text):
            server = next((known for known in _SERVERS if known in line.partition("#")[0]), None)
            if server is None:
                waiting.append(line)
                continue
            self._run("".join(waiting), where)
            waiting = []
            self._serve(line, server)
        self._run("".join(waiting), where)

    def _run(self, script: str, where: str) -> None:
        if not script.strip():
            return
        # What a block sets holds for the next one.
        ended = "\nenv -0 > .exported\n"
        done = self._typed(script + ended)
        assert done.returncode == 0, f"{where}:\n{script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert "Traceback" not in done.stderr, done.stderr[-4000:]
        exported = (self.folder / ".exported").read_text().split("\0")[:-1]
        self.environment = dict(entry.split("=", 1) for entry in exported)

    def _typed(self, script: str) -> subprocess.CompletedProcess[str]:
        """What a shell did. Where it takes too long, all that it started is asked to end: runs end their Ray then."""
        shell = subprocess.Popen(
            ["bash", "-aeuo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = shell.communicate(timeout=_PATIENCE)
        except BaseException:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.communicate(timeout=60)
            raise
        return subprocess.CompletedProcess(script, shell.returncode, out, err)

    def _serve(self, line: str, server: str) -> None:
        port, path, option, up = _SERVERS[server]
        command, _, _ = line.partition(" #")
        if (named := re.search(rf"{option} (\d+)", command)) is not None:
            port, command = named[1], command.replace(named[0], "")
        script = f"{command.rstrip()} {option} {self._port(port)}"
        said = self.folder / f"{port}.log"
        with said.open("wb") as log:
            asked = ["bash", "-c", f"exec env {script}"]
            started = subprocess.Popen(asked, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        self.servers.append(started)
        until = time.monotonic() + 120
        while up not in said.read_text() or not _answers(f"http://127.0.0.1:{self._port(port)}{path}"):
            assert started.poll() is None and time.monotonic() < until, f"{script}: {said.read_text()}"
            time.sleep(0.2)
