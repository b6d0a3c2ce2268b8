"""What a long life needs: campaigns deleted, small files joined, old ones removed."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake.exceptions import DeltaError

from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.schema import TABLE_NAMES
from enumerator.errors import CatalogueError
from enumerator.storage.failures import one_line

# Told the part that is at work, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]
# Time that readers and writers at work may hold on to a version of a table.
RETENTION = timedelta(days=7)
# A file that no version names may be one that a writer has written and is about to commit: it is left
# alone for so long, whatever the retention.
UNCOMMITTED = timedelta(days=1)
# Each try to join the files of a table gives up where another writer comes first.
TRIES = 5
# The columns of what `compact` reports: files and bytes of the data, those of old versions included.
SCHEMA = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        *(
            pa.field(f"{what}_{when}", pa.int64(), nullable=False)
            for what in ("files", "bytes")
            for when in ("before", "after")
        ),
    ]
)


def delete(catalogue: Catalogue, campaign: str) -> int:
    """Delete a campaign, by its name or id: its starts, its given overlaps, its row; how many starts it had.

    Its minima and saddles stay: they are facts about the landscape, and starts that another process is
    about to store may name them. From the first commit on nothing is added to the campaign; a deletion
    that was stopped leaves it with the status `deleting`, and is finished by doing it again. Raises
    InputError for an unknown campaign.
    """
    campaign_id = catalogue.campaign_id(campaign)
    catalogue.campaign_table.begin_deletion(campaign_id)
    starts = sum(last - first for first, last in catalogue.done(campaign_id))
    catalogue.start_table.remove(campaign_id)
    catalogue.campaign_table.remove(campaign_id)
    return starts


def compact(catalogue: Catalogue, retention: timedelta = RETENTION, progress: Progress | None = None) -> pa.Table:
    """Join the small files of every table, remove what no version needs that is younger than `retention`.

    One row of `SCHEMA` for each table. Others may write meanwhile; those who still read or rewrite a
    version that is older than `retention` fail, and lose nothing. Raises CatalogueError where files
    cannot be read or removed.
    """
    tell = progress or (lambda part, done, total: None)
    rows = []
    for done, name in enumerate(TABLE_NAMES):
        tell("tables", done, len(TABLE_NAMES))
        files_before, bytes_before = _data_files(catalogue, name)
        for _ in range(TRIES):
            if catalogue.store.join_files(catalogue.store.open(name), at_least=2):
                break
        _clean(catalogue, name, retention)
        files_after, bytes_after = _data_files(catalogue, name)
        rows.append(dict(zip(SCHEMA.names, (name, files_before, files_after, bytes_before, bytes_after), strict=True)))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _clean(catalogue: Catalogue, name: str, retention: timedelta) -> None:
    """Remove files of old versions and leftovers of writers that died; shorten the log."""
    table = catalogue.store.open(name)
    try:
        for everything, age in ((False, retention), (True, max(retention, UNCOMMITTED))):
            hours = math.ceil(age / timedelta(hours=1))
            if table.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=everything):
                table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=everything)
                catalogue.store.keep(name, table.version())
        table.create_checkpoint()
        table.cleanup_metadata()
    except (DeltaError, OSError) as error:
        raise CatalogueError(f"cannot clean up {table.table_uri}: {one_line(error)}") from error


def _data_files(catalogue: Catalogue, name: str) -> tuple[int, int]:
    """Number and bytes of the files in the folder of a table, its log left out."""
    filesystem = catalogue.store.filesystem(catalogue.store.open(name))
    found = filesystem.get_file_info(pafs.FileSelector("", recursive=True))
    sizes = [info.size for info in found if info.type == pafs.FileType.File and not info.path.startswith("_delta_log")]
    return len(sizes), sum(size or 0 for size in sizes)
