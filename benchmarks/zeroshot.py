"""What the embedded model gets right without a search, on every data set that it has a feature pack of.

python benchmarks/zeroshot.py
python benchmarks/zeroshot.py --pictures ../shared    # the same through open_clip's own code, from the pictures
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from promptsearch.banks import PromptSet
from promptsearch.evaluators import open_problem
from promptsearch.evaluators.data.corruptions import split_condition
from promptsearch.evaluators.data.datasets import open_dataset
from promptsearch.evaluators.encoding.model_spec import EMBEDDED, resolve_model
from promptsearch.models.zeroshot.pack import FOLDERS

WORDINGS = (
    "a photo of a {}.",
    "a dark photo of a {}.",
    "a low resolution photo of a {}.",
    "a negative of a {}.",
    "a painting of a {}.",
    "a sketch of a {}.",
)


def from_the_packs(dataset: str) -> tuple[list[float], np.ndarray]:
    """Accuracy on the test pictures (%) with each wording, and per class with the first, by promptsearch's code."""
    problem = open_problem(EMBEDDED, dataset)
    task = problem.task(1, 0)
    test, evaluator = task.open_test(), problem.evaluator(task)
    hits = [evaluator.hits(PromptSet.of(w), test) for w in WORDINGS]
    return [100 * float(h.mean()) for h in hits], 100 * np.bincount(test.labels, hits[0]) / np.bincount(test.labels)


def from_the_pictures(dataset: str, folder: Path, wordings: Sequence[str]) -> list[float]:
    """The same from the pictures, by open_clip's model, preprocessing, tokenizer and zero-shot classifier.

    Args:
        dataset: Name of the pack.
        folder: Folder of the pictures.
        wordings: Templates, each by itself.
    """
    import open_clip
    import torch

    from promptsearch.evaluators import default_cache

    spec = resolve_model(EMBEDDED, default_cache(), device="cpu").source
    model, _, preprocess = open_clip.create_model_and_transforms(spec)
    model.eval()
    data = open_dataset(str(folder))
    labels = torch.tensor(data.labels("test"))
    stored = data.stored("test", range(len(labels)), split_condition(dataset)[1])
    right = np.zeros(len(wordings))
    with torch.inference_mode():
        heads = [
            open_clip.build_zero_shot_classifier(
                model, open_clip.get_tokenizer(spec), data.class_names, [lambda c, w=w: w.replace("{}", c)], None
            )
            for w in wordings
        ]
        pictures: list[torch.Tensor] = []
        for at, picture in enumerate(stored, 1):
            pictures.append(preprocess(picture.open()))
            if len(pictures) == 64 or at == len(labels):
                found = model.encode_image(torch.stack(pictures), normalize=True)  # (B, D)
                truth = labels[at - len(pictures) : at]
                right += [int(((found @ head).argmax(1) == truth).sum()) for head in heads]
                pictures = []
    return list(100 * right / len(labels))


@click.command()
@click.option(
    "--pictures", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Compute anew from here."
)
@click.option("--dataset", "datasets", multiple=True, type=click.Choice(list(FOLDERS)), help="Which.  [default: all]")
def main(pictures: Path | None, datasets: tuple[str, ...]) -> None:
    """Print a table of test accuracies (%): data sets by wordings."""
    click.echo(f"{'':18}" + "".join(f"{w.removeprefix('a ').removesuffix(' {}.'):>28}" for w in WORDINGS))
    for name in datasets or FOLDERS:
        shares, by_class = from_the_packs(name)
        click.echo(f"{name:18}" + "".join(f"{share:28.2f}" for share in shares))
        if pictures is not None:
            theirs = from_the_pictures(name, pictures / FOLDERS[name], WORDINGS)
            click.echo(f"{'  by open_clip':18}" + "".join(f"{share:28.2f}" for share in theirs))
        if len(by_class) <= 10:
            names = open_problem(EMBEDDED, name).source.class_names
            click.echo("  " + ", ".join(f"{c} {share:.0f}" for c, share in zip(names, by_class, strict=True)))


if __name__ == "__main__":
    main()
