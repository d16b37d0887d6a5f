"""docs/own-data.md runs as it stands, in a folder that has its drawn shapes, and prints what it shows."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from drawn import SHAPES, write_all

from promptsearch.cli import main

PAGE = Path(__file__).resolve().parent.parent / "docs" / "own-data.md"

#: Budgets of a test; the page's own lines say nothing of them.
SETTINGS = """
[beam]
model = "tiny"
bank = "simple-imagenet"
width = 2
depth = 1
"""


def transcript() -> list[tuple[str, str]]:
    """The commands of the page with what it shows of their output."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def test_the_page_runs_from_own_data_to_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "promptsearch.toml").write_text(SETTINGS)
    commands = transcript()
    assert {
        w
        for c, _ in commands
        for w in ("shapes", "photos", "labels.csv", "oxford", "shards", "pictures.parquet")
        if f"--dataset {w}" in c
    } == {"shapes", "photos", "labels.csv", "oxford", "shards", "pictures.parquet"}
    for command, shown in commands:
        words = shlex.split(command)
        assert words[0] == "promptsearch", command
        done = CliRunner().invoke(main, words[1:])
        assert done.exit_code == 0, (command, done.output)
        assert done.stdout.strip(), command
        if shown:
            assert done.stdout == shown, command
    new = sorted(f.name for f in (tmp_path / "new").iterdir())
    assert sorted(f.name for f in (tmp_path / "sorted").rglob("*.png")) == new
    assert {f.parent.name for f in (tmp_path / "sorted").rglob("*.png")} <= set(SHAPES)
    written = sorted(tmp_path.glob("labelled-*.csv"))
    assert len(written) == 5
    for file in written:
        with file.open(newline="") as f:
            rows = list(csv.DictReader(f))
        assert [Path(row["path"]).name for row in rows] == new and {row["label"] for row in rows} <= set(SHAPES)
