"""Prints the result of a run in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from promptsearch.search.proposal_search import tokens_a_second

#: Largest number of templates shown of one set; a larger set is cut to two and "and n more".
SHOWN = 12
#: Largest number of classes whose phrases are shown.
CLASSES = 20


def print_result(result: dict[str, Any], console: Console) -> None:
    """Print the winner, the runners-up, the baselines, the paired difference and where the run is saved.

    Args:
        result: What `build_result` returned.
        console: Where to print.
    """
    for note in result.get("notes", []):
        console.print(note, style="dim", markup=False, highlight=False, soft_wrap=True)
    shots = result["shots"]
    per_class = f"{shots} shot{'s' if shots != 1 else ''} per class" if shots else "no labels"
    console.print(
        f"{result['model']} on {result['dataset']}, {per_class}, "
        f"seed {result['seed']}: {effort(result)} in {result['seconds']:.1f} s",
        highlight=False,
        markup=False,
    )
    console.print(_table(result))
    if "phrases" in result["winner"]:
        said = phrase_lines(result["winner"], result["classes"])
        console.print("What the winner says of the classes:", highlight=False)
        for line in said[:CLASSES]:
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        if len(said) > CLASSES:
            console.print(f"  … and {len(said) - CLASSES} more classes (--json has all)\n", highlight=False)
    for line in verdicts(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if front := result.get("front"):
        console.print("\nBeaten by none in the objective, fluency and brevity together:", highlight=False)
        console.print(_front(result, front))
    for line in _decoded(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if proposals := result.get("proposals"):
        console.print(_proposals(proposals), highlight=False, markup=False, soft_wrap=True)
    run = result["run"]
    console.print(f"Run {run['study']} kept in {run['storage']}", highlight=False, markup=False, soft_wrap=True)


def effort(result: dict[str, Any]) -> str:
    """Return how much was computed, e.g. "10901 prompt sets scored" or "2,000 training steps"."""
    if "steps" in result:
        return f"{result['steps']:,} training steps"
    return f"{result['evaluations']} prompt sets scored"


def _table(result: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("prompts", ratio=1)
    for heading in _headings(result):
        table.add_column(heading, justify="right")
    table.add_column("test accuracy\n(95 % interval)", justify="right")
    table.add_row("winner", _prompts(result["winner"]), *_figures(result, result["winner"]), style="bold")
    for i, row in enumerate(result["runners_up"]):
        table.add_row("runner-up" if i == 0 else "", _prompts(row), *_figures(result, row), end_section=False)
    table.add_section()
    for row in result["baselines"]:
        table.add_row(row["name"], _prompts(row), *_figures(result, row))
    return table


def _front(result: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
    """Build the table of the Pareto front, best by the objective first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("prompts", ratio=1)
    for heading in (*_headings(result), "words"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(_prompts(row), *_figures(result, row)[:-1], str(row["words"]))
    return table


def verdicts(result: dict[str, Any]) -> list[str]:
    """Return the sentences below the table: how the winner was chosen, its estimated accuracy, the test result.

    Args:
        result: What `build_result` returned.
    """
    lines = []
    selection = result.get("selection") or {"method": "none"}
    method = selection["method"]
    if method != "none":
        of = f"{selection['tried']} {'repeated searches' if method in ('bagged', 'cv', 'bootstrap') else 'sets'}"
        if selection.get("scored"):
            of += f" ({selection['scored']} of them single templates that were scored for the choice)"
        line = f"The winner was chosen by {method} from {of}; the search's own best set is the first runner-up."
        if method == "weighted":
            line = f"The winner is the best of {of}, with weights learnt on the few shots."
        if kept := selection.get("kept"):
            stable = sum(k == result["estimate"]["folds"] for k in kept)
            every = "resampling" if result["estimate"].get("way") == "out-of-bag" else "fold"
            line += f" {stable} of its {len(kept)} templates were chosen again in every {every}."
        lines.append(line)
    if "refused" in selection:
        gain = result["estimate"]["gain"]["xent"]
        lines.append(
            "The hand-written prompt was kept: what was chosen first did worse on pictures that it was not chosen by "
            f"(cross-entropy {-gain:+.3f} nats a picture)."
        )
    if estimate := result.get("estimate"):
        how = "search and choice" if estimate["search_repeated"] else "the choice only, which flatters it,"
        how += f" repeated in {estimate['folds']} folds"
        if estimate.get("way") == "out-of-bag":
            how = f"every picture judged by those of the {estimate['folds']} repeated searches that had not seen it"
        lines.append(
            f"Estimate before the test ({how}): "
            f"{100 * estimate['accuracy']:.1f} %, "
            f"95 % interval {100 * estimate['low']:.1f} to {100 * estimate['high']:.1f}; "
            f"naive, on the pictures it was chosen by: {100 * estimate['naive']:.1f} %."
        )
    paired = result["paired"]
    opened = result.get("test_opened") or {"opened": 1, "choices": 1}
    times = "opened once" if opened["opened"] == 1 else f"opened {opened['opened']} times"
    if opened["choices"] > 1:
        times += f" for {opened['choices']} choices: no clean test any more"
    lines.append(f"Test split ({result['test_pictures']} pictures, {times}). Winner against {_paired(paired)}.")
    lines += [_transfer(t) for t in result.get("transfers", [])]
    return lines


def _transfer(transfer: dict[str, Any]) -> str:
    """Return the line about the winner and the baselines on another data set."""
    accuracies = [("winner", transfer["winner"]), *((row["name"], row) for row in transfer["baselines"])]
    shown = ", ".join(f"{name} {100 * row['test']['accuracy']:.2f}" for name, row in accuracies)
    many = f", opened for {transfer['choices']} choices" if transfer["choices"] > 1 else ""
    return (
        f"Transferred to {transfer['dataset']} ({transfer['test_pictures']} test pictures{many}): {shown}. "
        f"Winner against {_paired(transfer['paired'])}."
    )


def _paired(paired: dict[str, Any]) -> str:
    text = (
        f"{paired['baseline']}, same pictures: {100 * paired['difference']:+.2f} points, 95 % interval "
        f"{100 * paired['low']:+.2f} to {100 * paired['high']:+.2f}"
    )
    if "mcnemar" not in paired:
        return text
    return f"{text}, McNemar {p_value(paired['mcnemar'])}: {paired['verdict']}"


def p_value(p: float) -> str:
    """Format a p value, e.g. "p = 0.012" or "p < 0.001"."""
    return f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"


def _decoded(result: dict[str, Any]) -> list[str]:
    """Return lines for each text that learnt vectors were decoded to, with the accuracy lost by decoding."""
    winner, lines = result["winner"], []
    if "fluency" in winner:
        lines.append(f"{winner['name']}: the words shown have a fluency of {winner['fluency']:.2f} nats a token")
    for row in result.get("decoded", []):
        lost = 100 * (row["test"]["accuracy"] - winner["test"]["accuracy"])
        rated = f", fluency {row['fluency']:.2f} nats a token" if "fluency" in row else ""
        accuracy = f"{100 * row['test']['accuracy']:.2f} % of the test pictures"
        lines.append(f"{row['name']}: {accuracy} ({lost:+.2f} points){rated}")
        lines += [f"  {text}" for text in _weighted(row)[:SHOWN]]
        if "class_names" in row:
            lines.append(f"  names: {', '.join(row['class_names'][:20])}")
    return lines


def _proposals(proposals: dict[str, Any]) -> str:
    """Return how many prompts were proposed, how many were rejected and why, and the language model's usage."""
    rejected = ", ".join(f"{n} {reason}" for reason, n in proposals["rejected"].items()) or "none"
    text = f"{proposals['proposed']} prompts proposed, {proposals['accepted']} accepted, rejected: {rejected}"
    usage = proposals.get("usage") or {}
    if usage.get("calls"):
        tokens = f"{usage.get('tokens read', 0)} tokens read, {usage.get('tokens written', 0)} written"
        text += f"; {usage['calls']} calls of the language model, {tokens}"
        if speed := tokens_a_second(usage):
            text += f", {speed:.0f} tokens a second"
    return text


def _weighted(row: dict[str, Any]) -> list[str]:
    """Return the templates of a set as text; those of a weighted set with their shares, the heaviest first."""
    return [t if share is None else f"{share:.2f} × {t}" for t, share in by_weight(row)]


def _prompts(row: dict[str, Any]) -> str:
    templates = _weighted(row)
    lines = [escape(t) for t in templates[:SHOWN]]
    if len(templates) > SHOWN:
        lines = lines[:2] + [f"… and {len(templates) - 2} more"]
    if names := row.get("class_names"):
        lines.append(f"[dim]classes: {escape(', '.join(names))}[/dim]")
    elif phrases := row.get("phrases"):
        lines.append(f"[dim]with {sum(map(len, phrases))} phrases for {len(phrases)} classes[/dim]")
    return "\n".join(lines)


def phrase_lines(row: dict[str, Any], classes: Sequence[str]) -> list[str]:
    """Return a line for each class whose phrases are not just its own name, e.g. "cat: 0.60 × kitten, 0.40 × cat".

    Args:
        row: A saved prompt set, with `phrases`, `class_names` or neither.
        classes: The data set's class names.
    """
    said = row.get("phrases") or [{name: 1.0} for name in row.get("class_names") or classes]
    lines = []
    for own, phrases in zip(classes, said, strict=True):
        if list(phrases) == [own]:
            continue
        by_share = sorted(phrases.items(), key=lambda r: (-r[1], r[0]))
        lines.append(f"{own}: {', '.join(p if len(phrases) == 1 else f'{w:.2f} × {p}' for p, w in by_share)}")
    return lines


def by_weight(row: dict[str, Any]) -> list[tuple[str, float | None]]:
    """Return the templates of a set with their shares of the weight.

    Args:
        row: A saved prompt set, with `templates` and perhaps `weights`.

    Returns:
        (template, share between 0 and 1), the heaviest first; the share is None in a set without weights.
    """
    templates, weights = row["templates"], row.get("weights")
    if not weights:
        return [(t, None) for t in templates]
    shares = [w / sum(weights) for w in weights]
    return sorted(zip(templates, shares, strict=True), key=lambda r: -r[1])


def _headings(result: dict[str, Any]) -> list[str]:
    """Return the headings of the support set's columns."""
    headings = ["few-shot\naccuracy", "cross-\nentropy"] if result["shots"] else []
    if _extra(result):
        headings.append(str(result["objective"]).replace("-", "-\n", 1))
    return [*headings, "fluency\n(nats/token)"] if "fluency" in result["winner"]["support"] else headings


def _extra(result: dict[str, Any]) -> str | None:
    """Return the score's field for the objective, or None if it is accuracy or cross-entropy."""
    field = str(result.get("objective")).replace("-", "_")
    return field if field in result["winner"]["support"] and field not in ("accuracy", "xent") else None


def _figures(result: dict[str, Any], row: dict[str, Any]) -> list[str]:
    support, test = row["support"], row.get("test")
    shown = [f"{100 * support['accuracy']:.1f}", f"{support['xent']:.4f}"] if result["shots"] else []
    if extra := _extra(result):
        shown.append(f"{support[extra]:.4f}")
    if "fluency" in result["winner"]["support"]:
        shown.append(f"{support['fluency']:.2f}" if "fluency" in support else "")
    shown.append(f"{100 * test['accuracy']:.2f} ({100 * test['low']:.1f}–{100 * test['high']:.1f})" if test else "")
    return shown
