"""The catalogue: its tables and their schemas, what enters them, and what users ask of them."""
