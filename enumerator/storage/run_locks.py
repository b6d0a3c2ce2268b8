"""Which campaigns somebody runs: each run keeps a file of its own locked, and so it stays as long as the run lives."""

from __future__ import annotations

import fcntl
import os
import uuid
import weakref
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from enumerator.errors import CatalogueError

# The folder of these files, beside the tables of a catalogue.
FOLDER = "_runs"


class Claims:
    """The claims on the campaigns of a catalogue in a local folder; on an object store (None) nobody has any.

    A claim holds as long as this object, or until it is given up. Other machines on the same folder see it.
    """

    def __init__(self, address: Path | None) -> None:
        self._folder = None if address is None else address / FOLDER
        self._held: dict[str, tuple[int, Path]] = {}
        weakref.finalize(self, _give_up_all, self._held)

    def take(self, campaign_id: str) -> None:
        """Claim a campaign, beside others who may; what the dead have left of theirs goes. Raises CatalogueError."""
        if self._folder is None or campaign_id in self._held:
            return
        try:
            self._held[campaign_id] = self._locked(self._folder, campaign_id)
        except OSError as error:
            raise CatalogueError(
                f"cannot claim a campaign in {self._folder}: {error.strerror or error}: it must be a folder in which "
                "everybody who runs campaigns may write."
            ) from error

    def _locked(self, folder: Path, campaign_id: str) -> tuple[int, Path]:
        """A new file that this process has locked. Raises OSError."""
        folder.mkdir(exist_ok=True)
        for file in self._files(campaign_id):
            if not _is_locked(file):
                with suppress(OSError):  # of another user, or no file
                    file.unlink(missing_ok=True)
        # Locked before it gets its name: under that name nobody ever sees it unlocked while its owner lives.
        unnamed = folder / f".{uuid.uuid4().hex}"
        lock = os.open(unnamed, os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX)
        named = unnamed.with_name(f"{campaign_id}{unnamed.name}")
        unnamed.rename(named)
        return lock, named

    def give_up(self, campaign_id: str) -> None:
        """Claim a campaign no more."""
        if campaign_id in self._held:
            _give_up(*self._held.pop(campaign_id))

    def is_claimed(self, campaign_id: str) -> bool:
        """Whether anybody is known to claim a campaign."""
        return any(map(_is_locked, self._files(campaign_id)))

    def _files(self, campaign_id: str) -> list[Path]:
        return [] if self._folder is None else list(self._folder.glob(f"{campaign_id}.*"))

    def corrected(self, campaigns: ds.Dataset) -> ds.Dataset:
        """Rows of table `campaigns` of which those that are running, but that nobody runs, are stopped."""
        if self._folder is None:
            return campaigns
        rows = campaigns.to_table()
        status = rows["status"].to_pylist()
        if "running" not in status:
            return campaigns
        true = [
            "stopped" if word == "running" and not self.is_claimed(name) else word
            for word, name in zip(status, rows["campaign_id"].to_pylist(), strict=True)
        ]
        position = rows.schema.get_field_index("status")
        column = pc.cast(pa.chunked_array([true], pa.string()), rows.schema.field(position).type)
        return ds.dataset(rows.set_column(position, rows.schema.field(position), column))


def _is_locked(file: Path) -> bool:
    """Whether somebody holds a file; one that cannot be looked at is held."""
    try:
        lock = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # what is a pipe would be waited for
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _give_up(lock: int, file: Path) -> None:
    with suppress(OSError):  # its folder may be gone, with the catalogue
        file.unlink(missing_ok=True)
    os.close(lock)


def _give_up_all(held: dict[str, tuple[int, Path]]) -> None:
    while held:
        _give_up(*held.popitem()[1])
