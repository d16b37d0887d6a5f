"""Every command line of the documentation is run, in a small world that has the files and servers that it names.

The tutorial and the `sh` blocks of the how-to page run as they stand in test_docs.py.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from faulty_server import faulty_server
from PIL import Image
from tiny_model import TINY

from promptsearch import plugins
from promptsearch.cli import main
from promptsearch.evaluators import Cache, default_cache, open_problem
from promptsearch.evaluators.data.datasets import open_dataset
from promptsearch.evaluators.data.picture_features import LiveFeatures, export_pack, import_pack
from promptsearch.lm.locate import FOLDER
from promptsearch.search.gradient import PezOptions

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CLASSES = ("airplane", "cat", "ship")

#: Budgets as a project would set them, and no estimate, which is half of a search; what a line says itself is kept.
SETTINGS = """
[beam]
estimate = false
width = 2
depth = 2
[climb]
estimate = false
trials = 6
[random]
estimate = false
trials = 6
[tpe]
estimate = false
trials = 6
[evolve]
estimate = false
trials = 6
population = 2
offspring = 2
[pez]
steps = 3
[vpt]
epochs = 1
[compare]
trials = 5
shots = "1"
methods = "hand-written,beam,coop"
"""

#: What a line names and no test can have, and what stands in for it.
STAND_INS = [
    (r"--model RN50 --weights RN50\.safetensors", "--model local-dir:./my-clip"),  # 400 MB; test_main_job has RN50
    (r"--model (RN50|ViT-B-32:\S+|hf-hub:\S+)", "--model zeroshot"),  # from a hub
    (r"--dataset cifar100\b", "--dataset ./cifar10"),  # from a hub
    (r"lm Qwen/\S+", "lm embedded"),  # from a hub
    (r"lm smollm2", "lm embedded"),  # minutes; test_lm_smollm2 has the model itself
    (r"--trials (60|100|200|1000)", "--trials 8"),  # minutes
    (r"--seeds \d+", "--seeds 1"),  # hours
    (r"--shots 0(?=\s|$)", "--shots 0 --unlabelled 30"),  # of 500 training pictures
    (r"--methods hand-written,clip-cifar\S+", "--methods hand-written,beam,coop-4"),  # minutes
    (r"--shots 1,4,16", "--shots 1"),  # minutes
    (r"--ray ray://HEAD:10001", "--ray=auto"),  # test_ray.py has a client of a cluster
    (r"--ray(=local)?(?=\s|$)", "--ray=auto"),  # a cluster of its own takes seconds: test_ray.py starts one
    (r"(compare .*--ray=auto)", r"\1 --seeds 1"),  # a worker has the published epochs
    (r"FOLDER", "./my-pictures"),
]

#: Packages that a line needs and not every installation has.
EXTRAS = {"--log-to tensorboard": ("tensorboard",), "--to onnx": ("onnx", "onnxscript", "onnxruntime")}

#: Lines that need a hub: here, where there is none, they must say so in one line.
FROM_A_HUB = re.compile(
    r"--model (RN50(?! --weights)|ViT-B-32:|hf-hub:)|(?<!--model zeroshot )--dataset cifar100\b|--lm \w+/"
)


def lines_of(page: Path) -> list[str]:
    """The command lines of promptsearch on a page, but those that test_docs.py runs."""
    text = page.read_text("utf-8")
    if page.name in ("tutorial.md", "how-to.md"):
        text = re.sub(r"^```sh\n.*?^```", "", text, flags=re.M | re.S)
    fenced = "".join(re.findall(r"^```(?:sh|bash|text)\n(.*?)^```", text, re.M | re.S))
    indented = "".join(re.findall(r"^ {4}.*\n", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M))
    found = []
    for line in (fenced + indented).splitlines():
        for part in line.split(" && "):
            command = part.strip().removeprefix("$ ")
            if re.match(r"(\w+=\S+ )*(\.venv/bin/)?promptsearch ", command) and "[OPTIONS]" not in command:
                found.append(command)
    return found


LINES = {page.name: lines for page in PAGES if (lines := lines_of(page))}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three classes under every name that the pages use, banks, models; features as packs."""
    root = tmp_path_factory.mktemp("docs")
    here = root / "here"
    here.mkdir()
    rng = np.random.default_rng(0)
    for split, n in (("train", 24), ("test", 8)):
        for name, colour in zip(CLASSES, ((90, 120, 200), (150, 110, 60), (60, 90, 120)), strict=True):
            folder = root / "shared" / "cifar10" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = np.clip(rng.normal(colour, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    for name in ("birds", "cifar10", "imagenet", "imagenet-100", "my-pictures", "squares"):
        (here / name).symlink_to(root / "shared" / "cifar10")
    (here / "banks").symlink_to(ROOT / "banks")
    (here / "my-clip").symlink_to(TINY)
    (here / "my-gpt").symlink_to(FOLDER)
    for name in ("my-templates.txt", "many.txt", "best-500.txt"):
        (here / name).write_text("a photo of a {}.\na dark photo of a {}.\na sketch of a {}.\n")
    (here / "birds.yaml").write_text("".join(f"{name}: ['{name}', 'kind of {name}']\n" for name in CLASSES))
    (here / "names.txt").write_text("".join(f"{name}, kind of {name}\n" for name in CLASSES))
    (here / "promptsearch.toml").write_text(SETTINGS)
    cache = Cache(root / "cache", default_cache().packs)
    data = open_dataset(str(here / "cifar10"))
    packs = {"cifar10": None, "cifar100": None, "pacs-photo": None, "pacs-art": None, "pacs-sketch": None}
    packs |= {f"cifar10-{condition}": condition for condition in ("dark", "lowres", "negative")}
    for model in ("zeroshot", "tiny"):
        encoder = open_problem(model, str(here / "cifar10"), cache=cache, device="cpu").encoder
        for name, condition in packs.items():
            export_pack(LiveFeatures(data, condition, name, encoder, cache), encoder.spec, root / model / name)
            import_pack(root / model / name, cache)  # comes before the one that is shipped
    return root


@pytest.fixture
def lm_server() -> Iterator[str]:
    with faulty_server() as server:
        yield server.url


@pytest.fixture(autouse=True)
def small_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published ones, which no option of `compare` changes."""
    for module in ("", ".coop", ".names"):
        place = importlib.import_module(f"promptsearch.search.gradient{module}")  # `coop` is also a function's name
        monkeypatch.setattr(place, "published_epochs", lambda shots: 2)
    monkeypatch.setattr("promptsearch.runs.compare.methods.MANY", 20)
    monkeypatch.setattr(PezOptions.__init__, "__defaults__", (2, 3, 0.1, 0.1, "end"))


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    words = shlex.split(line.replace("…", "x"), comments=True)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        monkeypatch.setenv(name, value)
    target = words[words.index(">") + 1] if ">" in words else None
    args = words[1 : words.index(">")] if target else words[1:]
    result = CliRunner().invoke(main, args)
    assert "Traceback" not in result.output and not isinstance(result.exception, AssertionError), line
    if target:
        Path(target).write_text(result.stdout)
    return result


def made_small(line: str, request: pytest.FixtureRequest) -> str:
    """A line with stand-ins for what cannot be had; servers are started for those that name one."""
    for pattern, stand_in in STAND_INS:
        line = re.sub(pattern, stand_in, line)
    if "--ray" in line:
        request.getfixturevalue("cluster")
    if "postgresql://" in line:
        line = re.sub(r"postgresql://\S+", request.getfixturevalue("postgres"), line)
    if "--lm-url" in line:
        line = re.sub(r"--lm-url \S+", f"--lm-url {request.getfixturevalue('lm_server')}", line)
    return line


@pytest.mark.parametrize("page", LINES)
def test_every_command_line_of_the_page_runs(
    page: str, world: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(world / "here")
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(world / "cache"))
    if page == "plug-ins.md":  # `pip install ./docs/example-plugin`, of its own page
        monkeypatch.syspath_prepend(str(request.getfixturevalue("example_site")))
        monkeypatch.setenv("XDG_CACHE_HOME", str(world / "xdg"))
        plugins.found.cache_clear()
        request.addfinalizer(plugins.found.cache_clear)
    for line in LINES[page]:
        for option, packages in EXTRAS.items():
            for package in packages if option in line else ():
                pytest.importorskip(package, reason=f"{line}: needs an extra that is not installed here")
        if FROM_A_HUB.search(line) and "--ray" not in line:
            refused = run(line, monkeypatch)
            said = [text for text in refused.stderr.strip().splitlines() if not text.startswith("settings of ")]
            assert refused.exit_code in (1, 2) and len(said) == 1, (line, refused.output)
            assert re.search(r"cannot be reached|not in the cache|HF_HUB_OFFLINE", refused.stderr), refused.stderr
        result = run(made_small(line, request), monkeypatch)
        assert result.exit_code == 0, (line, result.output, result.stderr, result.exception)
        assert result.stdout.strip(), line


def test_there_are_lines_to_run() -> None:
    assert sum(map(len, LINES.values())) > 45 and os.environ["HF_HUB_OFFLINE"] == "1"
