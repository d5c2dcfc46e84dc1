import re
from pathlib import Path

ADR = Path(__file__).parents[2] / "docs" / "adr"


def test_the_index_lists_every_decision_by_its_title() -> None:
    listed = re.findall(r"^(\d+)\. \[(.+)\]\((.+)\)$", (ADR / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    pages = sorted(path.name for path in ADR.glob("[0-9]*.md"))
    assert [name for _, _, name in listed] == pages
    for number, title, name in listed:
        text = (ADR / name).read_text(encoding="utf-8")
        assert name.startswith(f"{int(number):04}-")
        assert text.startswith(f"# {number}. {title}\n")
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
