"""A catalogue over the years: merged, exported, imported, migrated, made smaller."""
