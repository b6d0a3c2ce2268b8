"""The HTTP service over one catalogue: tables, one minimum, SQL, identification, campaigns. Needs no Ray to read."""
