"""Files that last: where they lie, written whole or not at all, checked when they are read, and SQL over them."""
