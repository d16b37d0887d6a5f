"""Which templates of a bank did the captions of the embedded model's training not hold?

    python benchmarks/caption_templates.py > unseen.txt
    promptsearch beam --model zeroshot --bank unseen.txt

Prints them as a bank; how many there are, and at which token the class name stood in the captions, goes to stderr.
Wordings are compared without case, full stop and "a(n)".
"""

from __future__ import annotations

import click
import numpy as np

from promptsearch.banks import Template, load_bank
from promptsearch.models.zeroshot.captions import CONDITIONS, WORDINGS, caption
from promptsearch.models.zeroshot.concepts import Concept

#: Captions that are drawn to see where the class name stands.
DRAWN = 20_000

#: CoOp's longest context; the class name stands behind it, after the start-of-text token.
CONTEXT = 16


def unseen(bank: str) -> tuple[list[Template], int]:
    """Return the templates of a bank whose wording no caption had, and the number of all its templates."""
    held = {_plain(w) for wordings in WORDINGS.values() for w in wordings}
    templates = load_bank(bank).templates
    return [t for t in templates if _plain(str(t)) not in held], len(templates)


def behind_long_contexts() -> float:
    """Return the share of captions whose class name stands where CoOp's longest context would put it, or later."""
    import open_clip

    tokenizer = open_clip.get_tokenizer("RN50")
    rng = np.random.default_rng(0)
    concept = Concept(("zebra",), "", ("animal",))
    late = 0
    for _ in range(DRAWN):
        text = caption(concept, CONDITIONS[int(rng.integers(len(CONDITIONS)))], rng)
        late += len(tokenizer.encode(text.partition("zebra")[0])) >= CONTEXT
    return late / DRAWN


def _plain(wording: str) -> str:
    return wording.lower().rstrip(".").replace("a(n)", "a").replace("an {}", "a {}")


@click.command()
@click.option("--bank", default="templates", show_default=True)
def main(bank: str) -> None:
    """Print the templates of a bank that the captions did not hold."""
    left, total = unseen(bank)
    for template in left:
        click.echo(str(template))
    click.echo(f"{total - len(left)} of the {total} templates of {bank} stood in the captions", err=True)
    share = behind_long_contexts()
    click.echo(f"{100 * share:.1f} % of captions have the class name at token {CONTEXT + 1} or later", err=True)


if __name__ == "__main__":
    main()
