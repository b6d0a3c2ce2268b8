"""`python -m enumerator`: the command `enumerator`, as the installation names it; this library does not know it."""

import sys
from importlib.metadata import entry_points


def main() -> None:
    """Run the command."""
    commands = entry_points(group="console_scripts", name="enumerator")
    if not commands:
        sys.exit("error: the command `enumerator` is not installed here: in a clone, scripts/quickstart installs it.")
    next(iter(commands)).load()()


if __name__ == "__main__":
    main()
