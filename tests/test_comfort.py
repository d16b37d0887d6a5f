"""Settings files, logs, completion, the doctor, colours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_problem import make_problem, unit
from trial_runs import start

from promptsearch.cli import main
from promptsearch.config import RunConfig
from promptsearch.runs import RunRecord


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to run in, without settings above it, and a made-up problem that needs no torch."""
    folder = tmp_path / "project" / "deep"
    folder.mkdir(parents=True)
    (tmp_path / "bank.txt").write_text("a photo of a {}.\na dark photo of the {}.\na sketch of a {}.\n")
    make_problem(tmp_path / "cache", ["a dark photo of the {}.", "a sketch of a {}."])
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PROMPTSEARCH_CONFIG", raising=False)
    return folder


@pytest.fixture
def beam(tmp_path: Path) -> list[str]:
    """A command line that searches in no time."""
    return ["beam", "--model", "tiny", "--dataset", "made", "--bank", str(tmp_path / "bank.txt"), "--no-estimate"]


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    if code == 2:
        assert len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1
    return result


def helped(command: str, option: str) -> str:
    """The text that `--help` has for one option."""
    text = " ".join(run(*command.split(), "--help").stdout.split())
    at = re.search(rf" {option} [A-Z]", text)
    assert at is not None
    return text[at.start() + 1 :].split(" --", 1)[0]


def test_the_nearest_settings_show_in_the_help_and_are_used(elsewhere: Path, beam: list[str]) -> None:
    settings = 'shots = 2\nmodel = "tiny"\nseed = 7\n[beam]\ndepth = 1\nseed = 5\n'
    (elsewhere.parent / "promptsearch.toml").write_text(settings)
    assert "[default: 2]" in helped("beam", "--shots") and "[default: 2]" in helped("climb", "--shots")
    assert "[default: 1]" in helped("beam", "--depth") and "[default: 5]" in helped("beam", "--seed")
    assert "[default: 7]" in helped("tpe", "--seed")
    document = json.loads(run("beam", *beam[3:], "--json").stdout)
    assert (document["shots"], document["seed"], document["model"]) == (2, 5, "tiny")
    assert document["evaluations"] == 3  # one round: the bank's templates alone
    assert json.loads(run("beam", *beam[3:], "--shots", "1", "--json").stdout)["shots"] == 1


def test_a_pyproject_holds_settings_too(elsewhere: Path, beam: list[str]) -> None:
    settings = "[tool.promptsearch]\nshots = 3\n[tool.promptsearch.runs.list]\njson = true\n"
    (elsewhere / "pyproject.toml").write_text(settings)
    assert "[default: 3]" in helped("beam", "--shots")
    run(*beam, "--shots", "1", "--depth", "1")
    assert len(json.loads(run("runs", "list").stdout)) == 1


def test_a_named_file_comes_before_the_nearest(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "promptsearch.toml").write_text("shots = 3\n")
    (elsewhere / "mine.toml").write_text("shots = 8\n")
    assert "[default: 8]" in " ".join(run("--config", "mine.toml", "beam", "--help").stdout.split())
    monkeypatch.setenv("PROMPTSEARCH_CONFIG", str(elsewhere / "mine.toml"))
    assert "[default: 8]" in helped("beam", "--shots")
    assert "nowhere.toml" in run("--config", "nowhere.toml", "beam", "--help", code=2).stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shots = ", "not TOML"),
        ("shotz = 4", "did you mean shots"),
        ("[bean]\nwidth = 4", "did you mean beam"),
        ("[beam]\nwitdh = 4", "did you mean width"),
        ('[beam]\nwidth = "many"', "'many' is not a valid integer"),
        ("[beam]\njson = 1", "write true or false"),
        ("[beam]\nwidth = [1, 2]", "not a single value"),
        ('memory = "lots"', "4GB"),
        ("[runs.lists]\njson = true", "runs.lists"),
    ],
)
def test_mistakes_in_a_settings_file_are_one_line(elsewhere: Path, text: str, message: str) -> None:
    (elsewhere / "promptsearch.toml").write_text(text)
    error = run("beam", "--model", "tiny", code=2).stderr
    assert message in error and "promptsearch.toml" in error


def test_bytes_that_are_no_text(elsewhere: Path) -> None:
    (elsewhere / "promptsearch.toml").write_bytes(b"shots = \xff\xfe")
    assert "not TOML" in run("beam", code=2).stderr


def test_logs_go_to_stderr_and_leave_the_document_alone(beam: list[str]) -> None:
    args = [*beam, "--shots", "1", "--depth", "1", "--json", "--quiet"]
    processes = [start(*args), start(*args, "-vv")]
    (quiet, nothing), (loud, said) = (p.communicate(timeout=120) for p in processes)
    assert [p.returncode for p in processes] == [0, 0] and nothing == ""
    for words in ("model tiny (cpu, fp32)", "feature pack", "run beam-made-1shots"):
        assert words in said
    assert json.loads(loud) == json.loads(quiet)


def every_command(group: click.Group = main, *path: str) -> Iterator[list[str]]:
    yield list(path)
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, *path, name)
        else:
            yield [*path, name]


@pytest.mark.parametrize("columns", [80, 120])
def test_the_help_of_every_command_fits_the_terminal(columns: int) -> None:
    listed = set()
    for words in every_command():
        text = CliRunner().invoke(main, [*words, "--help"], terminal_width=columns).stdout
        assert max(map(len, text.splitlines())) <= columns, words
        if not words or words[-1] in ("banks", "cache", "data", "features", "runs"):  # their lists of commands
            assert "..." not in text.partition("\n")[2], words
            listed |= {(*words, line.split()[0]) for line in text.splitlines() if re.match(r"  \w+  ", line)}
    assert {tuple(words) for words in every_command() if words} <= listed


def test_the_folder_that_the_shell_is_in_was_removed(elsewhere: Path) -> None:
    elsewhere.rmdir()
    assert "templates" in run("banks", "list").stdout


def test_trainings_and_comparisons_are_listed_as_finished() -> None:
    config = {"command": "coop", "model": "tiny", "dataset": "made", "shots": 4, "seed": 0}
    record = RunRecord.open("learnt", None, RunConfig.from_dict(config), {})
    assert json.loads(run("runs", "list", "--json").stdout)[0]["state"] == "unfinished"
    record.finish({"run": {}, "winner": {"test": {"accuracy": 0.5}}})
    record = RunRecord.open("side", None, RunConfig.from_dict({"command": "compare", "model": "tiny"}), {})
    record.finish({"run": {}, "datasets": ["made", "cifar10"], "shots": [1, 2], "seeds": 3})
    learnt, side = json.loads(run("runs", "list", "--json").stdout)
    assert (learnt["state"], side["state"]) == ("finished", "finished")
    assert (side["dataset"], side["shots"], side["draws"]) == (["made", "cifar10"], [1, 2], 3)
    text = run("runs", "list").stdout
    assert re.search(r"side +tiny +made, cifar10 +1, 2 +3 draws +0 +finished", text), text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    assert "_PROMPTSEARCH_COMPLETE" in run("completion", shell).stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("promptsearch bea", "beam"),
        ("promptsearch beam --ba", "--bank"),
        ("promptsearch beam --bank gr", "grammar"),
        ("promptsearch beam --model ze", "zeroshot"),
        ("promptsearch tpe --dataset cifar10-d", "cifar10-dark"),
        ("promptsearch runs show be", "beam-made-1shots-seed0"),
        ("promptsearch report be", "beam-made-1shots-seed0"),
        ("promptsearch tpe --objective xe", "xent"),
        ("promptsearch evolve --proposer gr", "grammar"),
        ("promptsearch compare --methods hand-written,be", "hand-written,beam"),
        ("promptsearch evolve --lm em", "embedded"),
        ("promptsearch runs resume --model ze", "zeroshot"),
    ],
)
def test_the_shell_is_offered(words: str, offered: str, beam: list[str]) -> None:
    run(*beam, "--shots", "1", "--depth", "1")
    count = str(len(words.split()) - 1)
    env = {"_PROMPTSEARCH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count}
    result = CliRunner().invoke(main, env=env, prog_name="promptsearch")
    assert any(line.partition(",")[2].startswith(offered) for line in result.stdout.splitlines()), result.stdout


def test_words_that_are_offered_are_those_there_are() -> None:
    from promptsearch.banks import load_bank
    from promptsearch.commands import complete
    from promptsearch.config import WriterConfig
    from promptsearch.evaluators.encoding.model_spec import PRECISIONS
    from promptsearch.reports.export import FORMATS
    from promptsearch.runs.compare.methods import Writer, all_methods, searcher_options
    from promptsearch.runs.selection.select import SELECTIONS
    from promptsearch.search.gradient.coop import POSITIONS
    from promptsearch.search.gradient.vpt import KINDS
    from promptsearch.search.tpe import SAMPLERS

    def offered(command: str, option: str) -> set[str]:
        params = main.commands[command].params
        (param,) = (p for p in params if option in p.opts)
        return {i.value for i in param.shell_complete(click.Context(main.commands[command]), "")}

    for command, option, there in (
        ("beam", "--precision", PRECISIONS),
        ("beam", "--select", SELECTIONS),
        ("export", "--to", FORMATS),
        ("coop", "--position", POSITIONS),
        ("pez", "--position", POSITIONS),
        ("vpt", "--kind", KINDS),
        ("tpe", "--sampler", SAMPLERS),
    ):
        assert offered(command, option) == set(there), option
    searchers = searcher_options({})
    known = set(all_methods(load_bank("simple-imagenet"), searchers, 9, Writer(WriterConfig(), list)))
    assert known == set(complete.METHODS[1:]) | searchers.keys() == offered("compare", "--against")
    told = run("compare", "--help").stdout
    assert all(re.search(rf"\b{name}\b", told) for name in known)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_a_real_bash_completes(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "promptsearch"
    code = "from promptsearch.cli import main; main(prog_name='promptsearch')"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    script.chmod(0o755)
    typed = (
        'eval "$(promptsearch completion bash)"; COMP_WORDS=(promptsearch beam --bank open); COMP_CWORD=3\n'
        'complete -p promptsearch; _promptsearch_completion promptsearch; echo "${COMPREPLY[*]}"'
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    env["PATH"] = f"{tmp_path / 'bin'}:{env['PATH']}"
    done = subprocess.run(["bash", "-c", typed], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "complete -o nosort -F _promptsearch_completion promptsearch",
        "openai-cifar openai-imagenet",
    ], done.stderr


def test_the_shell_is_offered_what_plug_ins_bring_without_importing_it(tmp_path: Path) -> None:
    info = tmp_path / "site" / "mine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    kinds = ("banks", "datasets", "objectives", "proposers", "searchers")
    (info / "entry_points.txt").write_text("".join(f"[promptsearch.{k}]\nmine-{k} = not_there:thing\n" for k in kinds))
    lines = {
        "banks": "promptsearch beam --bank mi",
        "datasets": "promptsearch beam --dataset mi",
        "objectives": "promptsearch beam --objective mi",
        "proposers": "promptsearch evolve --proposer mi",
        "searchers": "promptsearch search mi",
    }
    code = (
        "import os, sys\n"
        "from promptsearch.cli import main\n"
        "for line in sys.argv[1:]:\n"
        "    os.environ |= {'COMP_WORDS': line, 'COMP_CWORD': str(len(line.split()) - 1)}\n"
        "    try: main(prog_name='promptsearch')\n"
        "    except SystemExit: pass\n"
        "print(sorted({'torch', 'open_clip', 'transformers', 'datasets', 'optuna'} & set(sys.modules)))"
    )
    path = os.pathsep.join([str(tmp_path / "site"), *(p for p in sys.path if p)])
    env = {**os.environ, "PYTHONPATH": path, "_PROMPTSEARCH_COMPLETE": "bash_complete"}
    done = subprocess.run([sys.executable, "-c", code, *lines.values()], env=env, capture_output=True, text=True)
    assert done.stdout.splitlines() == [*(f"plain,mine-{kind}" for kind in lines), "[]"], done.stderr


def states(*args: str, code: int = 0) -> dict[str, dict[str, str]]:
    document = json.loads(run("doctor", "--json", *args, code=code).stdout)
    assert document["healthy"] == (code == 0)
    return {f["what"]: f for f in document["findings"]}


def test_the_doctor_finds_a_healthy_machine() -> None:
    found = states()
    for what in ("promptsearch", "torch", "optuna", "CPU", "settings", "embedded model zeroshot", "cache", "runs"):
        assert found[what]["state"] == "ok", found[what]
    assert found["model hub"]["state"] == "note" and "HF_HUB_OFFLINE" in found["model hub"]["found"]
    assert "HF_ENDPOINT" in found["model hub"]["remedy"]
    assert "embedded model zeroshot" in run("doctor").stdout


def test_the_doctor_names_what_will_fail(tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "notes").write_text("no database, and longer than sixteen bytes")
    (elsewhere / "promptsearch.toml").write_text("shotz = 4")
    found = states("--storage", str(tmp_path / "notes"), code=1)
    for what in ("cache", "runs", "settings"):
        assert found[what]["state"] == "problem" and found[what]["remedy"], found[what]
    assert "cannot be written (Not a directory)" in found["cache"]["found"]
    assert "3 problems" in run("doctor", "--storage", str(tmp_path / "notes"), code=1).stdout


def test_the_doctor_sees_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptsearch.commands.doctor.SPACE", 1 << 60)
    assert "free some space" in states(code=1)["cache"]["remedy"]


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch, beam: list[str]) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "")
    text = run(*beam, "--shots", "1", "--depth", "1").stdout
    assert "\x1b[3" not in text and max(len(line) for line in text.splitlines() if line.startswith(" ")) <= 140


def test_a_notebook_shows_a_table_and_a_plot() -> None:
    from promptsearch.banks import Bank
    from promptsearch.evaluators import open_problem
    from promptsearch.runs import Budget, search
    from promptsearch.search import BeamSearch, RandomSearch, Space, get_objective

    problem = open_problem("tiny", "made")
    bank = Bank.of("mine", ["a photo of a {}.", "a dark photo of the {}.", "a sketch of a {}.", "<b>{}</b>"])
    problem.encoder.encode_texts = lambda texts: unit(np.random.default_rng(0).normal(size=(len(texts), 16)))  # type: ignore[method-assign]
    evaluator = problem.evaluator(problem.task(shots=2, seed=0))
    rounds = search(BeamSearch(bank, get_objective("xent"), depth=2), evaluator)
    trials = search(RandomSearch(Space(bank), get_objective("xent")), evaluator, budget=Budget(trials=4))
    for outcome in (rounds, trials):
        table = outcome._repr_html_()
        assert "&lt;b&gt;{}&lt;/b&gt;" in table and "<b>" not in table
        assert table.count("<tr>") == 1 + min(10, len(outcome.ranked))
        text = str(outcome).splitlines()
        assert text[0] == f"{outcome.evaluations} prompt sets scored" and max(map(len, text)) < 80
        best, score = outcome.ranked[0]
        assert text[3].split() == f"1 {100 * score.accuracy:.1f} % {score.xent:.4f} {best.templates[0]}".split()
        assert len(text) == 3 + sum(s.size for s, _ in outcome.ranked[:10])
        xent, accuracy = outcome.plot().data
        assert xent.x[-1] == outcome.evaluations and xent.y[-1] == outcome.winner[1].xent
        assert list(xent.y) == sorted(xent.y, reverse=True) and accuracy.y[-1] == 100 * outcome.winner[1].accuracy
