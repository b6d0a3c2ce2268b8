"""What a long life needs: campaigns deleted, small files joined, old ones removed."""

from __future__ import annotations

from enumerator.catalogue import Catalogue
from enumerator.tables import table_schema


def delete(catalogue: Catalogue, campaign_id: str) -> int:
    """Delete a campaign: its starts, its given overlaps, its row; how many starts it had.

    Its minima and saddles stay: they are facts about the landscape, and starts that another process is
    about to store may name them. From the first commit on nothing is added to the campaign; a deletion
    that was stopped leaves it with the status `deleting`, and is finished by doing it again. Raises
    InputError for an unknown campaign.
    """
    catalogue.campaign_table.begin_deletion(campaign_id)
    starts = sum(last - first for first, last in catalogue.done(campaign_id))
    nothing = table_schema("starts").arrow.empty_table()
    catalogue.store.commit(
        "starts", lambda table: catalogue.store.rewrite(table, nothing, ("campaign_id", campaign_id))
    )
    catalogue.campaign_table.remove(campaign_id)
    return starts
