"""Constrained sampling of lines: at each step the model chooses among the tokens that keep the line valid."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from promptsearch.lm.reader import Reader

#: Number of tokens to sample from at each step: the most likely ones among those that are allowed.
DRAWN = 256
#: Number of lines with a filled gap that are rated at a time.
FILLED = 64
#: Largest number of tokens in a line.
LONGEST = 40
PLACE = "{}"

#: Kinds of tokens. GLUE continues a word; STOP is a full stop; END ends the line without one.
WORD, GLUE, COMMA, HOLE, STOP, END, HOLE_STOP, HOLE_COMMA = range(8)
#: Kinds of the tokens that contain the placeholder, alone or with the punctuation behind it.
HOLES = {"{}": HOLE, "{}.": HOLE_STOP, "{},": HOLE_COMMA}
_PART = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*['’-]?|['’-][^\W\d_]+")


@dataclass(frozen=True)
class LineRules:
    """Rules for a line: words in lower case, ended by a full stop or a line break.

    Attributes:
        place: Whether the line contains exactly one `{}`; otherwise it contains none.
        words: Largest number of words, counting `{}`.
        least: Smallest number of words, counting `{}`.
        names: Words that a line must not contain in singular or plural, e.g. the task's class names.
        continuations: Number of lines begun for each prompt; of several, the last one to end is dropped.
        barred: For each prompt, further words that its lines must not contain.
    """

    place: bool = True
    words: int = 15
    least: int = 2
    names: tuple[str, ...] = ()
    continuations: int = 4
    barred: tuple[tuple[str, ...], ...] = ()


def finder(names: Sequence[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds any of the names in a text, in singular or plural, or None without names.

    Args:
        names: The names; spaces, underscores and hyphens in them count as the same.
    """
    words = [r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", n.strip()))) for n in names if n.strip()]
    return re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?:s|es)?(?!\w)", re.IGNORECASE) if words else None


@dataclass(frozen=True)
class Line:
    """A line that a model wrote.

    Attributes:
        text: The line.
        likelihood: Mean log-likelihood per token in nats, including the end of the line.
    """

    text: str
    likelihood: float


@dataclass
class Vocabulary:
    """The tokens of a tokenizer, sorted by their role in a line.

    Scores have a column for each of the K usable tokens, and two more for the full stop and the end of the line.

    Attributes:
        text: The text of each token, as it appears in the middle of a text.
        columns: (K,) the tokens that a line may consist of.
        kinds: (K + 2,) kind of each column.
        fresh: (K + 2,) whether the token of each column begins with a space.
        stops: Tokens that are a full stop.
        ends: Tokens that end a line.
        hole: Tokens of ` {}`, and of `{}` at the beginning of a line; the first of each is among the columns.
    """

    text: list[str]
    columns: np.ndarray
    kinds: np.ndarray
    fresh: np.ndarray
    stops: list[int]
    ends: list[int]
    hole: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))

    @classmethod
    def of(cls, tokenizer: Any, size: int, ends: Sequence[int]) -> Vocabulary:
        """Sort the tokens of a tokenizer.

        Args:
            tokenizer: A tokenizer of transformers.
            size: Number of the model's logits; the tokenizer may have fewer tokens.
            ends: Tokens that end an answer according to the model's configuration.
        """

        def ids(text: str) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        anchor = ids("a")
        head = len(tokenizer.decode(anchor))
        count = min(size, len(tokenizer))
        text = [t[head:] for t in tokenizer.batch_decode([[*anchor, i] for i in range(count)])]
        special = set(tokenizer.all_special_ids)
        hole = ids("a {}")[len(anchor) :], ids("{}")
        columns: list[int] = []
        kinds: list[int] = []
        stops: list[int] = []
        last = {i for i in ends if i < size}
        for i, t in enumerate(text):
            if i in special or i in last:
                continue
            bare = t.strip(" ")
            if bare in HOLES and len(t) - len(bare) <= 1:
                columns.append(i)
                kinds.append(HOLES[bare])
            elif bare.strip() == ".":
                stops.append(i)
            elif "\n" in bare and not bare.strip():
                last.add(i)
            elif i in (hole[0][0], hole[1][0]) and PLACE.startswith(bare):
                columns.append(i)
                kinds.append(HOLE)
            elif t == ",":
                columns.append(i)
                kinds.append(COMMA)
            elif len(t) - len(bare) <= 1 and not t.endswith(" ") and bare == bare.lower() and _PART.fullmatch(bare):
                columns.append(i)
                kinds.append(WORD if t != bare else GLUE)
        fresh = [text[i].startswith(" ") for i in columns]
        return cls(
            text,
            np.array(columns),
            np.array([*kinds, STOP, END]),
            np.array([*fresh, False, False]),
            sorted(stops),
            sorted(last),
            hole,
        )


@dataclass
class _Row:
    """The state of a line that is being written."""

    prompt: int
    rng: np.random.Generator
    named: re.Pattern[str] | None = None
    text: str = ""
    words: int = 0
    placed: bool = False
    last: int = -1  # the kind of the last token
    forced: list[int] = field(default_factory=list)
    total: float = 0.0
    tokens: int = 0
    done: bool = False


class LineWriter:
    """Samples lines that continue prompts and obey the rules.

        writer = LineWriter(Reader(model, pad=0), Vocabulary.of(tokenizer, model.config.vocab_size, [0]))
        lines = writer.write([ids], seed=[0], rules=LineRules(), temperature=1.0, top_p=0.95)

    A token that would break a rule is never sampled: a second `{}`, the end before the first `{}`, a word beyond the
    limit, or a class name. Each line has its own random generator, made from the seed and the line's position.

    Args:
        reader: Runs the language model.
        vocabulary: The tokens of its tokenizer.

    Attributes:
        written: Number of tokens written so far, without those that end a line.
    """

    def __init__(self, reader: Reader, vocabulary: Vocabulary) -> None:
        self.reader, self.vocabulary = reader, vocabulary
        kinds = vocabulary.kinds
        self._of = {kind: kinds == kind for kind in range(8)}
        self.written = 0
        self._allowed: dict[tuple[Any, ...], Any] = {}

    def write(
        self, rows: Sequence[Sequence[int]], seed: Sequence[int], rules: LineRules, temperature: float, top_p: float
    ) -> list[list[Line]]:
        """Sample lines that continue each prompt.

        Args:
            rows: Tokens of each prompt. After a prompt that ends with a colon, a line begins with a space.
            seed: Seed of the sampling.
            rules: Rules for the lines.
            temperature: Sampling temperature, above 0.
            top_p: Probability mass from which tokens are sampled.

        Returns:
            The lines of each prompt, most likely first.
        """
        n = rules.continuations
        lead = [self.vocabulary.text[r[-1]].rstrip(" ").endswith(":") for r in rows]
        own = list(dict.fromkeys(map(tuple, rows)))  # equal prompts are read once
        logits = self.reader.begin(own)
        same = finder(rules.names)
        named = [finder((*rules.names, *some)) for some in rules.barred] or [same] * len(rows)
        alive = [
            _Row(i, np.random.default_rng([*seed, i, j]), named[i], last=WORD if lead[i] else -1)
            for i in range(len(rows))
            for j in range(n)
        ]
        at = [own.index(tuple(rows[r.prompt])) for r in alive]
        self.reader.select(at)
        logits = logits[at]
        lines: list[list[Line]] = [[] for _ in rows]
        for step in range(LONGEST):
            tokens = self._step(logits, alive, rules, (temperature, top_p), LONGEST - step)
            for row in alive:
                if row.done and row.tokens:
                    lines[row.prompt].append(Line(row.text.strip(), row.total / row.tokens))
            # A step for one row costs nearly as much as for many, so each prompt's last unfinished line is dropped.
            enough = [len(some) >= max(1, n - 1) for some in lines]
            keep = [i for i, row in enumerate(alive) if not row.done and not enough[row.prompt]]
            if not keep:
                break
            if len(keep) < len(alive):
                self.reader.select(keep)
                alive, tokens = [alive[i] for i in keep], [tokens[i] for i in keep]
            self.written += len(tokens)
            logits = self.reader.go_on(tokens)
        return [sorted(some, key=lambda line: (-line.likelihood, line.text)) for some in lines]

    def _step(
        self,
        logits: Any,
        rows: Sequence[_Row],
        rules: LineRules,
        drawing: tuple[float, float],
        left: int,
    ) -> list[int]:
        """Sample a token for each row, mark the rows that end as done, and return the tokens (B) to read next."""
        import torch

        v = self.vocabulary
        device = logits.device
        logs = logits.log_softmax(-1)  # (B, V)
        columns = torch.as_tensor(v.columns, device=device)
        stop = logs[:, v.stops].logsumexp(-1, keepdim=True) if v.stops else logs[:, :1] - 1e9
        end = logs[:, v.ends].logsumexp(-1, keepdim=True) if v.ends else logs[:, :1] - 1e9
        every = torch.cat([logs[:, columns], stop, end], 1)  # (B, K + 2)
        allowed = torch.stack([self._may(row, rules, left, device) for row in rows])  # (B, K + 2)
        scores = every.masked_fill(~allowed, float("-inf"))
        top = scores.topk(min(DRAWN, scores.shape[1]), -1)  # (B, DRAWN), likeliest first
        best, at = top.values.double().cpu().numpy(), top.indices.cpu().numpy()
        tokens: list[int] = []
        for i, row in enumerate(rows):
            if row.forced:
                token = row.forced.pop(0)
                row.total += float(logs[i, token])
                row.tokens += 1
                tokens.append(token)
                continue
            column = self._draw(row, best[i], at[i], drawing)
            if column is None:  # drop the line, because every token would break a rule
                row.done, row.tokens = True, 0
                tokens.append(0)
                continue
            row.total += float(every[i, column])
            row.tokens += 1
            tokens.append(self._add(row, column))
        return tokens

    def _draw(self, row: _Row, best: np.ndarray, at: np.ndarray, drawing: tuple[float, float]) -> int | None:
        """Sample a column that does not complete a name, or return None if there is none.

        Columns are tried in a random order, sampled without replacement from softmax(log p / temperature) by the
        Gumbel-max trick (in descending order of log p / temperature + g, g ~ Gumbel(0, 1)), and after those of the
        nucleus in order of likelihood.

        Args:
            row: The line.
            best: (DRAWN,) log-likelihoods in descending order; -inf for columns that are not allowed.
            at: (DRAWN,) their columns.
            drawing: Temperature and top-p.
        """
        temperature, top_p = drawing
        kept = int(np.isfinite(best).sum())
        noise = row.rng.gumbel(size=len(best))
        if not kept:
            return None
        scaled = best[:kept] / temperature
        share = np.exp(scaled - scaled.max())
        share /= share.sum()
        nucleus = min(kept, int(np.searchsorted(np.cumsum(share), top_p)) + 1)
        order = np.argsort(-(scaled[:nucleus] + noise[:nucleus]), kind="stable")
        for i in [*order.tolist(), *range(nucleus, kept)]:
            column = int(at[i])
            if row.named is None or not self._names(row, column, row.named):
                return column
        return None

    def _names(self, row: _Row, column: int, named: re.Pattern[str]) -> bool:
        text = self.vocabulary.text
        added = text[self.vocabulary.columns[column]] if column < len(self.vocabulary.columns) else ""
        return named.search(row.text + added) is not None

    def _add(self, row: _Row, column: int) -> int:
        """Append the text of a column to a line, and return the token that the model reads next."""
        v = self.vocabulary
        kind = int(v.kinds[column])
        if kind in (STOP, END):
            row.text += "." if kind == STOP else ""
            row.done = True
            return 0
        token = int(v.columns[column])
        if kind in HOLES.values():
            row.text += (" " if row.last != -1 else "") + PLACE + {HOLE_STOP: ".", HOLE_COMMA: ","}.get(kind, "")
            row.placed = True
            row.words += 1
            row.done = kind == HOLE_STOP
            if PLACE not in v.text[token]:
                row.forced = list(v.hole[0 if row.last != -1 else 1][1:])
            kind = COMMA if kind == HOLE_COMMA else HOLE
        else:
            row.text += v.text[token]
            row.words += kind == WORD or row.last == -1
        row.last = kind
        return token

    def _may(self, row: _Row, rules: LineRules, left: int, device: Any) -> Any:
        """Return which columns (K + 2,) the rules allow next, with `left` tokens left."""
        lacks = rules.place and not row.placed
        over = row.words >= rules.words - (1 if lacks else 0)
        least = min(rules.least, rules.words)
        complete = not lacks and row.words >= least and row.last != COMMA
        closing = lacks and row.words + 1 >= least
        short = left <= (3 if lacks else 1)
        beginning = not row.text
        state = (row.last, beginning, lacks, over, complete, short, closing)
        if state not in self._allowed:
            import torch

            self._allowed[state] = torch.as_tensor(self._mask(state), device=device)
        return self._allowed[state]

    def _mask(self, state: tuple[Any, ...]) -> np.ndarray:
        last, beginning, lacks, over, complete, short, closing = state
        v, of = self.vocabulary, self._of
        spaced = last != -1  # whether a word must begin with a space
        hole = np.zeros_like(of[HOLE])
        if lacks:
            hole |= (
                of[HOLE] | (of[HOLE_STOP] if closing else False) | (of[HOLE_COMMA] if not over and not short else False)
            )
            hole &= v.fresh if spaced else ~v.fresh
        if short or (lacks and over and last in (COMMA, HOLE)):
            final = of[STOP] | of[END]
            return hole if lacks else final
        may = hole.copy()
        if not over:
            may |= of[WORD] if spaced else of[GLUE]
        if not beginning and last in (WORD, GLUE):
            may |= of[GLUE]
        if not beginning and last in (WORD, GLUE, HOLE) and not (over and not lacks):
            may |= of[COMMA]
        if complete:
            may |= of[STOP] | of[END]
        if not may.any():
            may |= of[STOP] | of[END]
        return may

    def fill(
        self,
        context: Sequence[int],
        gaps: Sequence[tuple[str, str]],
        ids: Callable[[str], list[int]],
        seed: Sequence[int],
        rules: LineRules,
        top_p: float,
    ) -> list[list[Line]]:
        """Fill gaps with words that are sampled given the text before the gap, and rated in the whole line.

        Args:
            context: Tokens that are read before every line.
            gaps: The texts before and after each gap.
            ids: Returns the tokens of a text.
            seed: Seed of the sampling.
            rules: The names that lines must not contain, and the number of lines per gap; other rules do not apply.
            top_p: Probability mass from which words are sampled.

        Returns:
            Up to `rules.continuations` lines for each gap, most likely first.
        """
        v, named = self.vocabulary, finder(rules.names)
        words = [int(c) for c, kind in zip(v.columns, v.kinds, strict=False) if kind == WORD]
        self.reader.hold(context[:-1])
        logits = self.reader.begin([[*context, *ids(before)] for before, _ in gaps])[:, words]  # (B, W)
        best, at = logits.topk(min(DRAWN, len(words)), -1)
        best, at = best.double().cpu().numpy(), at.cpu().numpy()
        made: list[list[str]] = []
        for i, (before, behind) in enumerate(gaps):
            rng = np.random.default_rng([*seed, i])
            share = np.exp(best[i] - best[i].max())
            nucleus = int(np.searchsorted(np.cumsum(share / share.sum()), top_p)) + 1
            # try more words, because the text after the gap may fit less likely ones
            nucleus = max(nucleus, 2 * rules.continuations)
            order = np.argsort(-(best[i][:nucleus] + rng.gumbel(size=len(best[i]))[:nucleus]), kind="stable")
            texts = [_joined(before, v.text[words[int(at[i][j])]], behind) for j in order]
            if rules.names:
                texts = [t for t in texts if named is None or not named.search(t)]
            made.append(texts[: rules.continuations])
        every = [t for texts in made for t in texts]
        rated: list[list[float]] = []
        for start in range(0, len(every), FILLED):
            rated += self.reader.rate(context, [ids(t) for t in every[start : start + FILLED]]).tolist()
        found = iter(zip(every, rated, strict=True))
        lines = [
            [Line(t, total / max(1.0, n)) for t, (total, n) in itertools.islice(found, len(texts))] for texts in made
        ]
        return [sorted(some, key=lambda line: (-line.likelihood, line.text)) for some in lines]


def _joined(before: str, word: str, behind: str) -> str:
    """Join a word and the texts around it with spaces, but without a space before a full stop or comma."""
    text = f"{before} {word.strip()}" if before else word.strip()
    return text + behind if behind[:1] in (".", ",") else f"{text} {behind}".strip()
