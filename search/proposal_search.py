"""The base class of the searchers that have a proposer write templates: evolution, and climbing with an LM."""

from __future__ import annotations

import itertools
import math
import threading
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from promptsearch.banks import PromptSet, Template
from promptsearch.errors import PromptSearchError
from promptsearch.score import Score
from promptsearch.search.proposers.grammar import GrammarProposer
from promptsearch.search.proposers.request import Proposer, Request
from promptsearch.search.reply_parser import SEEN, TOKENS, ProposalFilter, without_thoughts
from promptsearch.search.searcher import Told
from promptsearch.search.trial_searcher import TrialSearcher

#: Largest number of characters stored of a reply; few answers, even with reasoning, are this long.
KEPT = 20_000

#: A scored set.
Scored = tuple[PromptSet, Score]


class Journal(Protocol):
    """Stores the replies of each step, so that a resumed run does not ask again."""

    def get(self, key: str) -> Any:
        """Return what was stored for a step, or None."""
        ...

    def put(self, key: str, value: Any) -> None:
        """Store the replies of a step."""
        ...

    def keys(self) -> Iterable[str]:
        """Return the steps with stored replies."""
        ...


class Memory(dict[str, Any]):
    """A journal in memory."""

    def put(self, key: str, value: Any) -> None:
        """Store the replies of a step."""
        self[key] = value


@dataclass
class Tools:
    """The objects that a `WritingSearcher` uses besides its space.

    Attributes:
        proposer: Writes templates; None for random edits from the bank.
        class_names: The task's class names, which templates must not contain.
        vectors: Returns unit text vectors (n, D) of n sets by the CLIP model, for crowding.
        fits: Returns whether each template fits into the CLIP model's context.
        journal: Stores replies.
        usage: Returns the proposer's usage so far.
    """

    proposer: Proposer | None = None
    class_names: Sequence[str] = ()
    vectors: Callable[[Sequence[PromptSet]], np.ndarray] | None = None
    fits: Callable[[Sequence[Template]], list[bool]] | None = None
    journal: Journal = field(default_factory=Memory)
    usage: Callable[[], Mapping[str, int]] = dict


@dataclass(frozen=True)
class View:
    """What the searcher knew after `told` trials; the requests of a step are made from it."""

    told: int = 0
    best: tuple[Scored, ...] = ()
    worst: tuple[Scored, ...] = ()
    since: int = 0


@dataclass(frozen=True)
class Wish:
    """A set to propose: one that is `ready`, or one that needs a template to be written.

    Attributes:
        request: The request for a template.
        ready: A complete set.
        around: The set to which the template is added, or in which it replaces `old`; None for the template alone.
        old: The template to replace.
    """

    request: Request | None = None
    ready: PromptSet | None = None
    around: PromptSet | None = None
    old: Template | None = None

    def made_with(self, template: Template) -> PromptSet:
        """Return the set with the written template."""
        if self.around is None:
            return PromptSet.of(template)
        return self.around.add(template) if self.old is None else self.around.replace(self.old, template)


class WritingSearcher(TrialSearcher):
    """Asks a proposer for templates one batch ahead, filters them, and fills up the batch with sets of the bank.

    The requests of a step use what was known one step before, so that a language model can write while the previous
    batch is scored. Replies are stored in the journal, from which a resumed run reads them.
    """

    #: Number of further requests in a step after replies that cannot be used.
    retries = 2

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.bounded = False
        self.tools = Tools()
        self._proposer: Proposer = GrammarProposer(self.space)
        self._filter = ProposalFilter()
        self._now = self._view = View()
        self._ahead: tuple[View, Future[list[str]]] | None = None
        self._origin: dict[PromptSet, dict[str, Any]] = {}
        self._spent: Counter[str] = Counter()

    def equip(self, tools: Tools) -> None:
        """Set the tools, before the first `tell`."""
        self.tools = tools
        self._proposer = tools.proposer or self._proposer
        self._filter = ProposalFilter(tools.class_names)
        self._spent = Counter(tools.usage())

    def ask(self, in_hand: Collection[PromptSet] = ()) -> list[PromptSet]:
        """Return the next batch of sets, and let the proposer write for the one after it."""
        batch = super().ask(in_hand)
        self._write_ahead(len(batch))
        return batch

    def tell(self, results: Told) -> None:
        """Learn the scores of sets, whoever proposed them."""
        super().tell(results)
        self._view, self._now = self._now, self._look([(s, v) for s, v in results])

    def notes(self, prompt_set: PromptSet) -> dict[str, Any]:
        """Return the origin of a set: the kind of request, the parents and the reply; empty for sets of the bank."""
        origin = self._origin.get(prompt_set)
        return {} if origin is None else {"origin": origin}

    def reported(self) -> dict[str, Any]:
        """Return the counts of this run's proposals.

        Returns:
            A dict with the counts "proposed", "accepted", "repaired", "rejected" ({reason: count}) and "spare" (usable
                templates that came after the batch was full); "usage", the proposer's calls and tokens; "said"
                ({reason: words of the server} for answers without text); and "form", in which form a language model was
                asked.
        """
        journal = self.tools.journal
        form = getattr(self.tools.proposer, "asked", None)
        return {**total_of([journal.get(key) for key in list(journal.keys())]), **({"form": form} if form else {})}

    def progress(self) -> str:
        """Return the number of accepted proposals, the reasons for rejections and the writing speed, in a few words."""
        total = self.reported()
        if not total["proposed"]:
            return ""
        reasons = ", ".join(f"{n} {reason}" for reason, n in total["rejected"].items())
        speed = tokens_a_second(total["usage"])
        spare = f"{total['spare']} not needed" if total["spare"] else ""
        parts = [f"{total['accepted']}/{total['proposed']} accepted", *(p for p in (reasons, spare) if p)]
        return ", ".join([*parts, *([f"{speed:.0f} tokens/s"] if speed else [])])

    @abstractmethod
    def _look(self, news: Sequence[Scored]) -> View:
        """Return the view after `news` was told."""

    @abstractmethod
    def _wishes(self, view: View, rng: np.random.Generator, n: int) -> list[Wish]:
        """Return the sets to propose, some of which need a template to be written; if none, the bank is drawn from."""

    def _propose(self, taken: set[PromptSet]) -> list[PromptSet]:
        view = self._ahead[0] if self._ahead is not None else self._view
        batch = self._written(view, f"{self.worker}.{view.told}", 0, taken)
        if len(batch) < self.batch:
            batch.update(dict.fromkeys(self._unseen(self.rng(), taken | set(batch), self.batch - len(batch))))
        # no set of the bank is left, but the last scores are not in the view yet
        if not batch and self._now.told > view.told:
            first = self.retries + 1  # the next step has the same view and must not repeat these requests
            batch = self._written(self._now, f"{self.worker}.{self._now.told}.now", first, taken)
        return list(batch)

    def _written(self, view: View, key: str, first: int, taken: set[PromptSet]) -> dict[PromptSet, None]:
        """Return up to a batch of sets that the proposer wrote.

        Args:
            view: What the requests are made from.
            key: The step, under which replies are stored.
            first: Number of the first attempt, on which the draws depend.
            taken: Sets that other workers are scoring.
        """
        kept = self.tools.journal.get(key) or {}
        asked: list[list[str]] = list(kept.get("replies", []))
        counts: Counter[str] = Counter()
        said: dict[str, str] = {}
        batch: dict[PromptSet, None] = {}
        for attempt in range(self.retries + 1):
            wishes = self._wishes_of(view, first + attempt, self.batch - len(batch))
            if not wishes:
                break
            if attempt == len(asked):
                asked.append(self._replies(view, first + attempt, self._requests(view, wishes)))
            self._accept(wishes, asked[attempt], taken, batch, counts, said)
            if len(batch) >= self.batch:
                break
        if counts:
            self._keep(key, kept, asked, {"counts": dict(counts), **({"said": said} if said else {})})
        return batch

    def _wishes_of(self, view: View, attempt: int, lacking: int) -> list[Wish]:
        entropy = np.random.SeedSequence([self.seed, view.told, self.worker, attempt, 1])
        spare = math.ceil(lacking / 4)
        return self._wishes(view, np.random.default_rng(entropy), lacking + spare)

    def _requests(self, view: View, wishes: Sequence[Wish]) -> list[Request]:
        """Return the requests of some wishes; each names the templates that were known at this view as already seen."""
        requests = [w.request for w in wishes if w.request is not None]
        if self.space.ensemble > 1:  # in an ensemble, a known template may still make a new set
            return requests
        seen = frozenset(str(s.templates[0]) for s in itertools.islice(self.known, view.told))
        return [replace(r, seen=seen) for r in requests]

    def _replies(self, view: View, attempt: int, requests: Sequence[Request]) -> list[str]:
        if self._ahead is not None:
            ahead, future = self._ahead
            self._ahead = None
            if attempt == 0 and ahead == view:
                return future.result()
        return self._ask_proposer(view, attempt, requests)

    def _ask_proposer(self, view: View, attempt: int, requests: Sequence[Request]) -> list[str]:
        if not requests:
            return []
        entropy = np.random.SeedSequence([self.seed, view.told, self.worker, attempt, 2])
        replies = self._proposer.propose(requests, int(entropy.generate_state(1)[0]))
        if len(replies) != len(requests):
            raise PromptSearchError(f"the proposer gave {len(replies)} replies to {len(requests)} requests; correct it")
        # If a reply is too long to be stored, only the answer after its reasoning is stored.
        return [r if len(r) <= KEPT else (without_thoughts(r) or "<think>")[:KEPT] for r in replies]

    def _write_ahead(self, batch: int) -> None:
        """Let the proposer write the next step's templates while this batch is scored."""
        if self._ahead is not None or self.tools.proposer is None or self.trials != self._now.told:
            return
        if not batch or (self.total is not None and self.trials + batch >= self.total):
            return
        view = self._now
        if self.tools.journal.get(f"{self.worker}.{view.told}") is not None:  # a resumed run
            return
        requests = self._requests(view, self._wishes_of(view, 0, self.batch))
        if not requests:
            return
        future: Future[list[str]] = Future()

        def work() -> None:
            try:
                future.set_result(self._ask_proposer(view, 0, requests))
            except BaseException as e:  # raised again where the replies are used
                future.set_exception(e)

        threading.Thread(target=work, name="proposals", daemon=True).start()
        self._ahead = (view, future)

    def finish(self, patience: float = 10.0) -> None:
        """Wait at most `patience` seconds for the proposer to finish, and discard what it writes."""
        if self._ahead is not None:
            future = self._ahead[1]
            self._ahead = None
            try:
                future.exception(timeout=patience)
            except TimeoutError:
                return

    def _accept(
        self,
        wishes: Sequence[Wish],
        replies: Sequence[str],
        taken: set[PromptSet],
        batch: dict[PromptSet, None],
        counts: Counter[str],
        said: dict[str, str],
    ) -> None:
        """Add usable templates to the batch, count the others, and store in `said` what a server said instead."""
        found: list[tuple[Wish, str, PromptSet, Template | None]] = []
        unread = iter(replies)
        for wish in wishes:
            if wish.ready is not None:
                found.append((wish, "", wish.ready, None))
                continue
            reply = next(unread)
            verdict = self._filter.read(reply)
            counts["proposed"] += 1
            counts["repaired"] += verdict.repaired
            if verdict.template is None:
                counts[f"rejected: {verdict.reason}"] += 1
                if verdict.said:
                    said.setdefault(verdict.reason, verdict.said)
            else:
                found.append((wish, reply, wish.made_with(verdict.template), verdict.template))
        for wish, reply, made, template in found:
            if made in self.known or made in taken or made in batch or made.size > self.space.ensemble:
                counts[f"rejected: {SEEN}"] += template is not None
            elif len(batch) < self.batch:
                if template is not None and self.tools.fits is not None and not self.tools.fits([template])[0]:
                    counts[f"rejected: {TOKENS}"] += 1
                    continue
                batch[made] = None
                counts["accepted"] += template is not None
                if wish.request is not None:
                    kind, parents = wish.request.kind, list(wish.request.parents)
                    self._origin[made] = {"kind": kind, "parents": parents, "reply": reply[:2000]}
            else:
                counts["spare"] += template is not None

    def _keep(self, key: str, kept: Mapping[str, Any], asked: list[list[str]], found: Mapping[str, Any]) -> None:
        now = Counter(self.tools.usage())
        used, self._spent = now - self._spent, now
        step: dict[str, Any] = {**found, "usage": {**kept.get("usage", {}), **used}}
        if self.tools.proposer is not None:
            step["replies"] = asked
        if step != kept:
            self.tools.journal.put(key, step)


def total_of(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the total counts and usage of all steps of a journal."""
    counts: Counter[str] = Counter()
    usage: Counter[str] = Counter()
    for step in steps:
        counts.update(step.get("counts", {}))
        usage.update(step.get("usage", {}))
    said = {reason: words for step in reversed(steps) for reason, words in step.get("said", {}).items()}
    rejected = {k.partition(": ")[2]: n for k, n in sorted(counts.items()) if k.startswith("rejected: ") and n}
    totals = {key: counts[key] for key in ("proposed", "accepted", "spare", "repaired")}
    return {**totals, "rejected": rejected, "usage": dict(usage), **({"said": said} if said else {})}


def tokens_a_second(usage: Mapping[str, int]) -> float | None:
    """Return the tokens read and written per second of the language model's time, or None if it was not measured."""
    tokens, milliseconds = usage.get("tokens read", 0) + usage.get("tokens written", 0), usage.get("milliseconds", 0)
    return 1000 * tokens / milliseconds if milliseconds else None
