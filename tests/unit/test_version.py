import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def test_the_changelogs_newest_version_is_the_packages() -> None:
    headings = re.findall(
        r"^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    released = [(name, date) for name, date in headings if name != "Unreleased"]
    assert released[0][0] == version()
    assert all(date for _, date in released[1:])
    assert headings[0][0] in {"Unreleased", version()}
