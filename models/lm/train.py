"""Train the embedded language model: a small GPT-2 and its tokenizer, on made-up captions.

    python -m promptsearch.models.lm.train --out folder

models/lm/README.md has the commands of the shipped weights.  Writes an ordinary transformers folder (config.json,
model.safetensors in float16, tokenizer.json …) and a log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from promptsearch.models.lm.sentences import document

HERE = Path(__file__).resolve().parent
END = "<|endoftext|>"
CONTEXT = 320
HELD_OUT = 10_000  # the seed of documents that are never trained on


def train_tokenizer(vocabulary: int, documents: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, so that any text can be read."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    rng = np.random.default_rng(0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document(rng) for _ in range(documents)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def rows(tokenizer: Any, seed: int) -> Iterator[list[int]]:
    """Endless rows of CONTEXT tokens, each beginning with a whole document."""
    rng = np.random.default_rng([2026, seed])
    end = tokenizer.eos_token_id
    row = [end]
    while True:
        for ids in tokenizer([document(rng) for _ in range(64)])["input_ids"]:
            row += [*ids, end]
            if len(row) >= CONTEXT:
                yield row[:CONTEXT]
                row = [end]


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Weights in float16, in a folder that transformers 4 reads too."""
    model.generation_config.do_sample = True  # `transformers serve` heeds a temperature only then
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    file = out / "tokenizer_config.json"
    settings = {**json.loads(file.read_text("utf-8")), "tokenizer_class": "PreTrainedTokenizerFast"}
    settings.pop("backend", None)
    file.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


@torch.no_grad()
def held_out_loss(model: Any, batch: torch.Tensor) -> float:
    """Mean cross-entropy per token, in nats, on documents never trained on."""
    model.eval()
    loss = float(model(batch, labels=batch).loss)
    model.train()
    return loss


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=HERE)
@click.option("--steps", default=2000)
@click.option("--batch", default=12)
@click.option("--layers", default=3)
@click.option("--width", default=128)
@click.option("--vocabulary", default=1536)
@click.option("--documents", default=20_000, help="That the tokenizer is trained on.")
@click.option("--lr", default=2e-3)
@click.option("--start", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A folder to go on from.")
@click.option("--warm-up", default=0.05, help="Share of the steps in which the learning rate rises.")
@click.option("--seed", default=0, help="Of the documents.")
@click.option("--stop", type=int, help="Stop after this step, whatever the learning rate is then.")
def main(
    out: Path,
    steps: int,
    batch: int,
    layers: int,
    width: int,
    vocabulary: int,
    documents: int,
    lr: float,
    start: Path | None,
    warm_up: float,
    seed: int,
    stop: int | None,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(vocabulary, documents) if start is None else AutoTokenizer.from_pretrained(start)
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT,
        n_embd=width,
        n_layer=layers,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    torch.manual_seed(0)  # a script of its own: transformers' initialisation has no generator argument
    model = GPT2LMHeadModel(config)
    if start is not None:
        model.load_state_dict(GPT2LMHeadModel.from_pretrained(start, dtype=torch.float32).state_dict())
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=warm_up)
    source, held = rows(tokenizer, seed), rows(tokenizer, HELD_OUT)
    test = torch.tensor([next(held) for _ in range(32)])
    log, started = [], time.perf_counter()
    for step in range(1, steps + 1):
        x = torch.tensor([next(source) for _ in range(batch)])  # (B, CONTEXT)
        loss = model(x, labels=x).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step in (steps, stop):
            seconds = round(time.perf_counter() - started)
            log.append({"step": step, "loss": round(held_out_loss(model, test), 4), "seconds": seconds})
            click.echo(json.dumps(log[-1]))
            save(model, tokenizer, out)
            model.float()
        if step == stop:
            break
    (out / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))


if __name__ == "__main__":
    main()
