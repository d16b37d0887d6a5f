"""Prints the result of a run in the terminal: one sentence, a table, and notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from promptsearch.evaluators import Interval
from promptsearch.evaluators.intervals import Paired
from promptsearch.evaluators.scoring.metrics import BINS, TOP, ClassReport
from promptsearch.runs import Row, RunResult
from promptsearch.runs.result import Gains, Transfer
from promptsearch.search.proposal_search import tokens_a_second

#: A terminal of fewer columns than this is too narrow for a table.
NARROW = 80
#: If a baseline has more templates than this, only their number is shown.
LISTED = 12
#: Largest number of classes whose phrases are shown without `-v`.
CLASSES = 20


def print_result(result: RunResult, console: Console, verbose: bool = False) -> None:
    """Print which prompt set won and how certain that is, then a table of the winner and the baselines.

    Args:
        result: The result of a run.
        console: Where to print.
        verbose: Whether to print the runners-up, how the winner was chosen and where the run is saved, too.
    """
    lines: list[str | Table] = [headline(result), "", _table(result, verbose), *_phrases(result, verbose)]
    if result.estimate is not None:
        lines.append(_estimate(result))
    lines += _refused(result)
    if verbose:
        lines += [*_metrics(result), *_choice(result), *template_gains(result), *_opened(result)]
    elif result.test_choices > 1:
        lines += _opened(result)
    lines += [_transfer(t) for t in result.transfers]
    if result.front is not None:
        lines += ["", "No other prompt set is better in the objective, in fluency and in brevity together:"]
        lines.append(_front(result, result.front))
    lines += _decoded(result)
    if result.proposals is not None:
        lines.append(_proposals(result.proposals))
    lines += result.notes
    lines.append(_setting(result))
    if verbose and result.storage:
        lines.append(f"Saved in {result.storage}")
    for line in lines:
        if isinstance(line, Table) and console.width < NARROW:
            for text in _as_lines(line):
                console.print(text, highlight=False)  # rich wraps text at spaces
        elif isinstance(line, Table):
            console.print(line)
        else:
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _as_lines(table: Table) -> list[str]:
    """Return a table as lines of text, for terminals so narrow that its columns would cut words."""
    headings = [str(c.header).replace("-\n", "-").replace("\n", " ") for c in table.columns]
    lines = []
    for row in zip(*(c.cells for c in table.columns), strict=True):
        for heading, cell in zip(headings, map(str, row), strict=True):
            if heading in ("", "prompts"):
                lines += [part if not heading else f"  {part}" for part in cell.splitlines()]
            elif cell:
                lines.append(f"  {heading}: {cell}")
        lines.append("")
    return lines


def headline(result: RunResult) -> str:
    """Return one sentence that says what won, by how much, and how sure that is.

    Args:
        result: The result of a run.
    """
    what, test = _what(result), result.winner.test
    if test is None or result.paired is None:
        found = f"The winner is {what}"
        if result.estimate is None:
            return f"{found}; there was no test split to measure it on."
        e = result.estimate.accuracy
        return f"{found}, expected to classify {100 * e.value:.1f} % of new pictures correctly ({_interval(e, 1)})."
    points = 100 * result.paired.difference.value
    return (
        f"The winner, {what}, classifies {100 * test.value:.2f} % of {result.test_pictures:,} test pictures correctly "
        f"({_interval(test, 1)}), {abs(points):.2f} points {'fewer' if points < 0 else 'more'} than the "
        f"{_baseline(result)} prompt ({_against(result.paired)}): {result.paired.verdict}."
    )


def verdicts(result: RunResult) -> list[str]:
    """Return sentences on the winner's expected accuracy, how it was chosen, and the test split.

    Args:
        result: The result of a run.
    """
    estimate = [] if result.estimate is None else [_estimate(result)]
    chosen = [*_refused(result), *_choice(result), *template_gains(result)]
    return [*estimate, *chosen, *_opened(result), *map(_transfer, result.transfers)]


def effort(result: RunResult) -> str:
    """Return the amount of computation as text, e.g. "10,901 prompt sets scored" or "2,000 training steps"."""
    if result.steps is not None:
        return f"{result.steps:,} training steps"
    return f"{result.evaluations:,} prompt sets scored"


def p_value(p: float) -> str:
    """Format a p value, e.g. "p = 0.012" or "p < 0.001"."""
    return f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"


def phrase_lines(row: Mapping[str, Any], classes: Sequence[str], gains: Sequence[float | None] = ()) -> list[str]:
    """Return a line for each class whose phrases are not just its own name, e.g. "cat: 0.60 × kitten; 0.40 × cat".

    Args:
        row: A saved prompt set, with `phrases`, `class_names` or neither.
        classes: The data set's class names.
        gains: For each class, the gain of its phrases, shown at the end of its line; empty to show none.
    """
    said = row.get("phrases") or [{name: 1.0} for name in row.get("class_names") or classes]
    lines = []
    for own, phrases, gain in zip(classes, said, gains or [None] * len(classes), strict=True):
        if list(phrases) == [own]:
            continue
        by_share = sorted(phrases.items(), key=lambda r: (-r[1], r[0]))
        shown = "; ".join(p if len(phrases) == 1 else f"{w:.2f} × {p}" for p, w in by_share)
        lines.append(f"{own}: {shown}{'' if gain is None else f' ({100 * gain:+.2f} points)'}")
    return lines


def template_gains(result: RunResult) -> list[str]:
    """Return a sentence on the gain of each template of an ensemble, if it was measured.

    Args:
        result: The result of a run.
    """
    if result.gains is None or not result.gains.templates:
        return []
    told = zip(result.winner.templates, result.gains.templates, strict=True)
    each = ", ".join(f"“{t}” {100 * gain:+.2f}" for t, gain in sorted(told, key=lambda r: -r[1]))
    return [f"What each template gained, in points of {_on(result.gains)}: {each}."]


def by_weight(row: Mapping[str, Any]) -> list[tuple[str, float | None]]:
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


def _baseline(result: RunResult) -> str:
    return result.baselines[0].name if result.baselines else "hand-written"


def _what(result: RunResult) -> str:
    if result.winner.readable is False:
        return "a set of learnt vectors"
    n = len(result.winner.templates)
    return f"“{result.winner.templates[0]}”" if n == 1 else f"an ensemble of {n} templates"


def _interval(interval: Interval, digits: int, sign: str = "") -> str:
    low, high = (f"{100 * x:{sign}.{digits}f}" for x in (interval.low, interval.high))
    return f"95 % interval {low} to {high}"


def _against(paired: Paired) -> str:
    tested = "" if paired.mcnemar is None else f", McNemar {p_value(paired.mcnemar)}"
    return f"same pictures, {_interval(paired.difference, 2, '+')}{tested}"


def _setting(result: RunResult) -> str:
    """Return a line that describes the run: its name, model, data set, draw and amount of computation."""
    shots = result.shots
    per_class = f"{shots} shot{'s' if shots != 1 else ''} per class" if shots else "no labels"
    run = f"Run {result.study}: {result.model} on {result.dataset}, {per_class}, seed {result.seed}"
    return f"{run}; {effort(result)} in {result.seconds:.1f} s (-v shows more)."


def _table(result: RunResult, verbose: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("prompts", ratio=1, overflow="fold")
    for heading in _headings(result):
        table.add_column(heading, justify="right")
    if result.paired is not None:
        table.add_column("test accuracy\n(95 % interval)", justify="right")
    table.add_row("winner", _prompts(result.winner), *_figures(result, result.winner), style="bold")
    for i, row in enumerate(result.runners_up if verbose else ()):
        table.add_row("runner-up" if i == 0 else "", _prompts(row), *_figures(result, row))
    table.add_section()
    for row in result.baselines:
        many = len(row.templates) > LISTED
        prompts = f"{len(row.templates)} templates, averaged" if many else _prompts(row)
        table.add_row(row.name, prompts, *_figures(result, row))
    return table


def _metrics(result: RunResult) -> list[str | Table]:
    """Return tables of the test metrics other than accuracy, of the winner and the baselines, and by class."""
    report = result.winner.report
    if report is None:
        return []
    rows = [("winner", report), *((r.name, r.report) for r in result.baselines if r.report is not None)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(("", *metric_headings(report))):
        table.add_column(heading, justify="right" if i else "left")
    for name, found in rows:
        table.add_row(name, *metric_cells(found, result.classes))
    return [f"On the test pictures, in % ({metric_note(report)}):", table, *_by_class(result, report)]


def _by_class(result: RunResult, report: ClassReport) -> list[str | Table]:
    """Return the table of recall and precision by class; if there are many classes, of those with the lowest recall."""
    before = result.baselines[0].report if result.baselines else None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(
        ("class", "recall", "precision", *([f"recall,\n{_baseline(result)}"] if before else []))
    ):
        table.add_column(heading, justify="right" if i else "left")
    names = result.classes or tuple(map(str, range(len(report.recall))))
    at = list(range(len(names)))
    if len(at) > CLASSES:
        at = np.argsort([2.0 if r is None else r for r in report.recall], kind="stable")[:CLASSES].tolist()
    for c in at:
        more = [percent(before.recall[c])] if before else []
        table.add_row(escape(names[c]), percent(report.recall[c]), percent(report.precision[c]), *more)
    heading = f"The {CLASSES} classes with the lowest recall, in %:" if len(at) < len(names) else "By class, in %:"
    return [heading, table]


def metric_headings(report: ClassReport) -> list[str]:
    """Return the headings of the cells that `metric_cells` returns."""
    top = [] if report.top5 is None else [f"top {TOP}"]
    return ["mean per\nclass", "worst class", *top, *([] if report.ece is None else ["calibration\nerror"])]


def metric_cells(report: ClassReport, classes: Sequence[str]) -> list[str]:
    """Return the metrics of a report in percent, as text."""
    worst = classes[report.worst] if report.worst < len(classes) else str(report.worst)
    cells = [percent(report.mean_per_class), f"{percent(report.worst_class)} ({worst})"]
    return [*cells, *(percent(v) for v in (report.top5, report.ece) if v is not None)]


def metric_note(report: ClassReport) -> str:
    """Return how the calibration error was measured."""
    if report.ece is None or report.logit_scale is None:
        return "no probabilities"
    return (
        f"expected calibration error in {BINS} bins, probabilities at the logit scale {report.logit_scale:.1f} that "
        "was fitted to the few shots"
    )


def percent(share: float | None) -> str:
    """Return a share in percent with one decimal, or a dash."""
    return "–" if share is None else f"{100 * share:.1f}"


def _phrases(result: RunResult, verbose: bool) -> list[str]:
    """Return lines with the winner's phrases for each class that does not just have its own name."""
    if result.winner.phrases is None:
        return []
    gains = result.gains if verbose else None
    said = phrase_lines(result.winner.to_dict(), result.classes, () if gains is None else gains.classes)
    shown = said if verbose else said[:CLASSES]
    more = [f"  … and {len(said) - len(shown)} more classes (-v has all)"] if len(said) > len(shown) else []
    what = "" if gains is None else f", and what they gained in {_on(gains)}"
    return [f"The winner's phrases for the classes{what}:", *(f"  {line}" for line in shown), *more, ""]


def _on(gains: Gains) -> str:
    """Return the pictures on which gains were measured, as text."""
    return f"{gains.where} accuracy (lost if that alone is undone)"


def _front(result: RunResult, rows: Iterable[Row]) -> Table:
    """Build the table of the Pareto front, best by the objective first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("prompts", ratio=1, overflow="fold")
    for heading in (*_headings(result), "words"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(_prompts(row), *_support(result, row), str(row.words))
    return table


def _choice(result: RunResult) -> list[str]:
    """Return sentences on how the winner was chosen, and how many of its templates were chosen again in every fold."""
    chosen, estimate = result.selection, result.estimate
    if chosen is None or chosen.method == "none":
        return []
    of = f"{chosen.tried} {'repeated searches' if chosen.method in ('bagged', 'cv', 'bootstrap') else 'sets'}"
    if chosen.scored:
        of += f" ({chosen.scored} of them single templates that were scored for the choice)"
    line = f"The winner was chosen by {chosen.method} from {of}; the search's own best set is the first runner-up."
    if chosen.method == "weighted":
        line = f"The winner is the best of {of}, with weights learnt on the few shots."
    if chosen.kept and estimate is not None:
        stable = sum(k == estimate.folds for k in chosen.kept)
        every = "resampling" if estimate.way == "out-of-bag" else "fold"
        verb = "was" if stable == 1 else "were"
        line += f" {stable} of its {len(chosen.kept)} templates {verb} chosen again in every {every}."
    return [line]


def _refused(result: RunResult) -> list[str]:
    """Return a sentence that says why the hand-written prompt was kept, if it was."""
    if result.selection is None or result.selection.refused is None:
        return []
    gain = None if result.estimate is None else result.estimate.gain
    worse = "" if gain is None else f" (cross-entropy {-gain[0]:+.3f} nats a picture)"
    return [
        f"The hand-written prompt was kept, because the first choice did worse than it on held-out pictures{worse}."
    ]


def _estimate(result: RunResult) -> str:
    """Return a sentence on the accuracy that was estimated before the test split was opened."""
    estimate = result.estimate
    assert estimate is not None  # callers have checked that there is an estimate
    how = "search and choice" if estimate.repeated else "only the choice, which makes the estimate too high,"
    how += f" repeated in {estimate.folds} folds"
    if estimate.way == "out-of-bag":
        how = f"every picture classified by those of the {estimate.folds} repeated searches that did not use it"
    return (
        f"Estimate before the test ({how}): {100 * estimate.accuracy.value:.1f} %, "
        f"{_interval(estimate.accuracy, 1)}; on the pictures it was chosen by: {100 * estimate.naive:.1f} %."
    )


def _opened(result: RunResult) -> list[str]:
    """Return sentences on the comparison on the test split, and on how often the split was opened."""
    if result.paired is None:
        return []
    times = "opened once" if result.test_opened == 1 else f"opened {result.test_opened} times"
    if result.test_choices > 1:
        times += f" for {result.test_choices} choices, so this is no unbiased test any more"
    difference = f"{100 * result.paired.difference.value:+.2f} points"
    against = f"{_baseline(result)}: {difference} ({_against(result.paired)}): {result.paired.verdict}"
    return [f"Test split ({result.test_pictures} pictures, {times}). Winner against {against}."]


def _transfer(transfer: Transfer) -> str:
    """Return the line about the winner and the baselines on another data set."""
    rows = [("winner", transfer.winner), *((row.name, row) for row in transfer.baselines)]
    shown = ", ".join(f"{name} {100 * row.test.value:.2f}" for name, row in rows if row.test is not None)
    many = f", opened for {transfer.choices} choices" if transfer.choices > 1 else ""
    against = f"{100 * transfer.paired.difference.value:+.2f} points ({_against(transfer.paired)})"
    shared = (
        f" {transfer.shared} of these test pictures are also training pictures of the run's data set, byte for byte."
        if transfer.shared
        else ""
    )
    return (
        f"Transferred to {transfer.dataset} ({transfer.test_pictures} test pictures{many}): {shown}. "
        f"Winner against {transfer.baselines[0].name}: {against}: {transfer.paired.verdict}.{shared}"
    )


def _decoded(result: RunResult) -> list[str]:
    """Return lines for each text decoded from learnt vectors, with the accuracy that decoding loses."""
    winner, lines = result.winner, []
    if winner.fluency is not None:
        lines.append(f"{winner.name}: the words shown have a fluency of {winner.fluency:.2f} nats a token")
    for row in result.decoded or ():
        rated = "" if row.fluency is None else f", fluency {row.fluency:.2f} nats a token"
        if row.test is not None and winner.test is not None:
            lost = 100 * (row.test.value - winner.test.value)
            rated = f": {100 * row.test.value:.2f} % of the test pictures ({lost:+.2f} points){rated}"
        lines.append(f"{row.name}{rated}")
        lines += [f"  {text}" for text in _weighted(row)]
        if row.class_names is not None:
            lines.append(f"  names: {', '.join(row.class_names)}")
    return lines


def _proposals(proposals: Mapping[str, Any]) -> str:
    """Return how many prompts were proposed, how many were rejected and why, and the language model's usage."""
    rejected = ", ".join(f"{n} {reason}" for reason, n in proposals["rejected"].items()) or "none"
    accepted = f"{proposals['accepted']} accepted, " if "accepted" in proposals else ""  # older documents lack this
    spare = f", {proposals['spare']} not needed" if proposals.get("spare") else ""
    text = f"{proposals['proposed']} prompts proposed, {accepted}rejected: {rejected}{spare}"
    usage = proposals.get("usage") or {}
    if usage.get("calls"):
        tokens = f"{usage.get('tokens read', 0)} tokens read, {usage.get('tokens written', 0)} written"
        text += f"; {usage['calls']} calls of the language model, {tokens}"
        if speed := tokens_a_second(usage):
            text += f", {speed:.0f} tokens a second"
    return text


def _weighted(row: Row) -> list[str]:
    """Return the templates of a set as text; those of a weighted set with their shares, the heaviest first."""
    return [t if share is None else f"{share:.2f} × {t}" for t, share in by_weight(row.to_dict())]


def _prompts(row: Row) -> str:
    lines = [escape(t) for t in _weighted(row)]
    if row.class_names is not None:
        lines.append(f"[dim]classes: {escape(', '.join(row.class_names))}[/dim]")
    elif row.phrases is not None:
        lines.append(f"[dim]with {sum(map(len, row.phrases))} phrases for {len(row.phrases)} classes[/dim]")
    return "\n".join(lines)


def _headings(result: RunResult) -> list[str]:
    """Return the headings of the support set's columns."""
    headings = ["few-shot\naccuracy", "cross-\nentropy"] if result.shots else []
    if _extra(result):
        headings.append(str(result.objective).replace("-", "-\n", 1))
    return [*headings, "fluency\n(nats/token)"] if "fluency" in result.winner.support else headings


def _extra(result: RunResult) -> str | None:
    """Return the field of the score that the objective uses, or None if it is accuracy or cross-entropy."""
    field = str(result.objective).replace("-", "_")
    return field if field in result.winner.support and field not in ("accuracy", "xent") else None


def _support(result: RunResult, row: Row) -> list[str]:
    shown = [f"{100 * row.support['accuracy']:.1f}", f"{row.support['xent']:.4f}"] if result.shots else []
    if extra := _extra(result):
        shown.append(f"{row.support[extra]:.4f}")
    if "fluency" in result.winner.support:
        shown.append(f"{row.support['fluency']:.2f}" if "fluency" in row.support else "")
    return shown


def _figures(result: RunResult, row: Row) -> list[str]:
    shown = _support(result, row)
    if result.paired is None:
        return shown
    test = row.test
    return [*shown, "" if test is None else f"{100 * test.value:.2f} ({100 * test.low:.1f}–{100 * test.high:.1f})"]
