"""Names and descriptions of classes that a language model writes: what they are, and what they gain.

    python benchmarks/lm_phrases.py --model zeroshot --data cifar100 --lm smollm2 --out phrases.yaml

Writes a phrase bank, prints a hundred phrases drawn at random (to be judged by hand), and the accuracy on the test
split of "a photo of a {}." with the class names, with each kind of phrase in their place or beside them, and with a
bank's. Then the main job chooses among the bank's phrases, the language model's, and both, by 16 pictures a class.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click
import numpy as np
import yaml

from promptsearch import PromptSearch
from promptsearch.banks import BASELINE, PromptSet, load_phrases
from promptsearch.evaluators import open_problem
from promptsearch.lm import LocalModel, locate
from promptsearch.search.proposers.phrases import KINDS, PhraseWriter, merged


def without_shared(phrases: dict[str, list[str]]) -> dict[str, list[str]]:
    """The phrases without those that two classes have, which a bank may not hold."""
    owners = Counter(p.lower() for of_class in phrases.values() for p in of_class)
    return {n: [p for p in of_class if owners[p.lower()] == 1] for n, of_class in phrases.items()}


def chosen(model: str, data: str, phrases: str, seed: int) -> float:
    """Test accuracy of the main job with a bank of phrases."""
    found = PromptSearch(model=model, shots=16, random_state=seed, phrases=phrases).fit(data).result_
    assert found is not None and found.winner.test is not None
    return found.winner.test.value


@click.command()
@click.option("--model", default="zeroshot", show_default=True)
@click.option("--data", default="cifar100", show_default=True)
@click.option("--lm", default="smollm2", show_default=True)
@click.option("--each", default=2, show_default=True, help="Phrases of each kind that a class gets.")
@click.option("--bank", help="A bank of phrases to compare with.")
@click.option("--seeds", default=3, show_default=True, help="Draws of the last table.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="phrases.yaml")
def main(model: str, data: str, lm: str, each: int, bank: str | None, seeds: int, out: Path) -> None:
    problem = open_problem(model, data)
    names = list(problem.source.class_names)
    writer = PhraseWriter(LocalModel(locate(lm)), problem.encoder.encode_texts)
    parts = {kind: writer.write(names, kind, each=each) for kind in KINDS}
    phrases = merged(list(parts.values()))
    out.write_text(yaml.safe_dump({"phrases": {n: list(p) for n, p in phrases.items()}}, sort_keys=False), "utf-8")
    every = [(n, kind, p) for kind, part in parts.items() for n, some in part.items() for p in some]
    click.echo(f"rejected: {', '.join(f'{n} {why}' for why, n in writer.rejected.items())}")
    click.echo(f"{len(every)} phrases for {len(names)} classes; a hundred of them, drawn at random:\n")
    for i in np.random.default_rng(0).permutation(len(every))[:100]:
        click.echo(f"    {every[i][0]}: {every[i][2]}")
    task = problem.task(1, 0)
    evaluator, test = problem.evaluator(task), task.open_test()

    def accuracy(said: list[list[str]]) -> str:
        return f"{100 * evaluator.hits(PromptSet([BASELINE], phrases=said), test).mean():.2f} %"

    click.echo(f"\nclass names: {accuracy([[n] for n in names])} of {len(test)} test pictures")
    for kind, part in parts.items():
        click.echo(f"{kind} in their place: {accuracy([list(part[n]) or [n] for n in names])}")
        click.echo(f"{kind} with them: {accuracy([[n, *part[n]] for n in names])}")
    click.echo(f"all of them with the class names: {accuracy([[n, *phrases.get(n, ())] for n in names])}")
    if bank is not None:
        own = load_phrases(bank).of_classes(names)
        click.echo(f"the phrases of {bank}, class names among them: {accuracy([list(p) for p in own])}")
        both = {n: list(dict.fromkeys([*p, *phrases.get(n, ())])) for n, p in zip(names, own, strict=True)}
        beside = out.with_suffix(".both.yaml")
        beside.write_text(yaml.safe_dump({"phrases": without_shared(both)}, sort_keys=False), "utf-8")
        for what, path in (("the bank's", bank), ("the language model's", str(out)), ("both", str(beside))):
            found = [chosen(model, data, path, seed) for seed in range(seeds)]
            click.echo(f"chosen by 16 shots, {what}: {100 * np.mean(found):.2f} % (mean of {seeds} draws)")


if __name__ == "__main__":
    main()
