"""Write the pages of the reference, or check the links of the site.

python -m scripts.site reference docs/reference
python -m scripts.site links site
"""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.site import answers, commands, http, links, python, tables


def write_reference(folder: Path) -> None:
    """Write what the code says of itself. Raises ValueError, with its name, for anything that nobody has described."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"commands": commands, "python": python, "tables": tables, "answers": answers, "http": http}
    for name, module in pages.items():
        (folder / f"{name}.md").write_text(module.page(), encoding="utf-8")


def main(task: str, folder: str) -> int:
    """Do one of the two; the exit code."""
    if task == "reference":
        write_reference(Path(folder))
        return 0
    broken = links.broken(Path(folder))
    for line in broken:
        print(line, file=sys.stderr)
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
