from pathlib import Path

import pytest

from worker.metrics import METRICS
from worker.reference import main, pages
from worker.settings import load_settings
from worker.settings_model import SECTIONS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", sorted(pages()))
def test_the_pages_in_docs_are_in_step_with_the_code(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_pages_name_everything() -> None:
    for metric in METRICS:
        assert f"`{metric.name}`" in pages()["metrics.md"]
    for name, model in SECTIONS.items():
        assert f"## [{name}]" in pages()["settings.md"]
        for field in model.model_fields:
            assert f"| `{field}` |" in pages()["settings.md"]


def test_the_example_of_the_settings_page_loads(tmp_path: Path) -> None:
    example = pages()["settings.md"].partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "secret").write_text("hush\n")
    path = tmp_path / "worker.toml"
    path.write_text(example.replace("/run/secrets/kafka", "secret"))
    settings = load_settings(path, [], {})
    assert settings.kafka.common["sasl.password"] == "hush"
    assert settings.engine.model == tmp_path / "models" / "demand"


def test_writes_into_a_folder_or_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--write", str(tmp_path)]) == 0
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == pages()
    assert main([]) == 0
    assert capsys.readouterr().out == "".join(pages().values())
