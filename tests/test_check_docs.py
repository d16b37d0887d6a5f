"""benchmarks/check_docs.py finds a figure that a command no longer prints, and nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
PAGE = """# A page

<!-- made by: printf 'accuracy 60.02 (58.7 to 61.4)\\nthen 5 classes in 2.5 s\\nand more\\n' -->
```text
accuracy   60.02 (58.7 to 61.4)
…
then 5 classes in 3.1 s
```
<!-- end -->

<!-- made by, slow: exit 3 -->
99
<!-- end -->
"""


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "check_docs", raising=False)


def run(tmp_path: Path, text: str, *options: str) -> tuple[int, str, str]:
    from check_docs import main

    page = tmp_path / "page.md"
    page.write_text(text, "utf-8")
    result = CliRunner().invoke(main, [str(page), *options])
    return result.exit_code, result.stdout, page.read_text("utf-8")


def test_right_figures_pass(tmp_path: Path) -> None:
    """Durations, spaces and lines left out do not count."""
    assert run(tmp_path, PAGE) == (0, "", PAGE)


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [("  60.02", "  60.03", 5), ("\nthen 5", "\nthen 6", 7), ("58.7 to 61.4)\n…", "58.7)\n…", 5)],
)
def test_a_wrong_figure_is_named_with_its_line(tmp_path: Path, right: str, wrong: str, line: int) -> None:
    assert right in PAGE
    code, said, _ = run(tmp_path, PAGE.replace(right, wrong))
    assert code == 1 and f"page.md:{line}: `printf" in said and len(said.splitlines()) == 1


def test_a_table_is_compared_with_plain_columns(tmp_path: Path) -> None:
    page = "<!-- made by: printf 'dark  47.44  52.92' -->\n\n| `dark` | 47.44 | **52.9{}** |\n\n<!-- end -->\n"
    assert run(tmp_path, page.format(2))[0] == 0 and run(tmp_path, page.format(3))[0] == 1


def test_lines_in_another_order_are_a_difference(tmp_path: Path) -> None:
    lines = PAGE.splitlines(keepends=True)
    lines[4], lines[6] = lines[6], lines[4]
    assert run(tmp_path, "".join(lines))[0] == 1


def test_write_puts_it_right_within_the_fence(tmp_path: Path) -> None:
    _, _, text = run(tmp_path, PAGE.replace("  60.02", "  60.03"), "--write")
    assert "```text\naccuracy 60.02 (58.7 to 61.4)\nthen 5 classes in 2.5 s\nand more\n```\n<!-- end -->" in text
    assert run(tmp_path, text) == (0, "", text)


def test_slow_commands_run_when_asked_for_and_a_failing_command_is_an_error(tmp_path: Path) -> None:
    assert run(tmp_path, PAGE, "--slow")[0] == 1


def test_the_first_page_and_the_gallery_name_their_commands() -> None:
    from check_docs import BLOCK

    blocks = {page: BLOCK.findall((ROOT / page).read_text("utf-8")) for page in ("README.md", "docs/gallery.md")}
    assert len(blocks["README.md"]) == 1 and len(blocks["docs/gallery.md"]) == 10


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name)
def test_a_page_with_a_table_of_figures_names_a_command(page: Path) -> None:
    """Slow ones, too, which nothing runs again."""
    text = page.read_text("utf-8")
    if re.search(r"^\|.*\d\.\d", text, re.M) and page.name not in ("reference.md", "development-data.md"):
        assert re.search(r"promptsearch [a-z]+ --|(benchmarks|docs)/\w+\.py|python3? -m promptsearch\.", text)
