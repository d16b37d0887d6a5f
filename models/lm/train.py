"""Trains the embedded language model, a small GPT-2, and its tokenizer on generated captions.

    python -m promptsearch.models.lm.train --out folder

This makes the shipped weights in about ten minutes on one core. A training that was interrupted resumes from its last
checkpoint and ends with the same weights: documents depend only on (seed, step), and one thread does all sums. The
result is an ordinary transformers folder (config.json, model.safetensors in float16, tokenizer.json …) and a log.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from promptsearch.models.lm.sentences import document

HERE = Path(__file__).resolve().parent
END = "<|endoftext|>"
CONTEXT = 320
SEED = 2026
HELD_OUT = 1 << 30  # a "step" whose documents are never trained on
#: Steps of learning-rate warm-up, and steps between two checkpoints (each with a line in the log).
WARM_UP, EVERY = 150, 100


def train_tokenizer(vocabulary: int, documents: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, which can read any text.

    Args:
        vocabulary: Number of tokens.
        documents: Number of generated texts to train on.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    rng = np.random.default_rng(0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
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


def rows(tokenizer: Any, step: int, n: int) -> torch.Tensor:
    """Return (n, CONTEXT) tokens of concatenated documents; each row starts with a new document."""
    rng = np.random.default_rng([SEED, step])
    end = tokenizer.eos_token_id
    full: list[list[int]] = []
    row = [end]
    while len(full) < n:
        for ids in tokenizer([document(rng) for _ in range(8)])["input_ids"]:
            row += [*ids, end]
            if len(row) >= CONTEXT:
                full.append(row[:CONTEXT])
                row = [end]
    return torch.tensor(full[:n])


def sinusoids(positions: int, width: int, size: float) -> torch.Tensor:
    """Return the initial position embeddings (positions, width): sinusoids (Vaswani et al. 2017, section 3.5).

    With them the model learns much sooner to attend to the previous position, which copying needs.

    Args:
        positions: Number of positions.
        width: Width of the model.
        size: Amplitude.
    """
    at = torch.arange(positions)[:, None] * torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2) / width)
    return size * torch.stack([at.sin(), at.cos()], 2).reshape(positions, width)


def build(tokens: int, end: int, layers: int, width: int) -> GPT2LMHeadModel:
    """Build the untrained model.

    Args:
        tokens: Size of the vocabulary.
        end: Id of the end token.
        layers: Number of layers.
        width: Width of the model.
    """
    torch.manual_seed(0)  # transformers' initialisation takes no generator; this script is its own process
    config = GPT2Config(
        vocab_size=tokens,
        n_positions=CONTEXT,
        n_embd=width,
        n_layer=layers,
        n_head=4,
        activation_function="gelu_pytorch_tanh",  # equals gelu_new, but is computed in one pass
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = GPT2LMHeadModel(config)
    model.transformer.wpe.weight.data = sinusoids(CONTEXT, width, 0.1)
    return model


def optimizers(model: GPT2LMHeadModel, lr: float) -> list[torch.optim.Optimizer]:
    """Return Muon (Jordan et al. 2024) for the layers' matrices and AdamW for all other parameters."""
    if not hasattr(torch.optim, "Muon"):
        raise click.ClickException(f"torch {torch.__version__} has no Muon; train with torch 2.9 or later")
    named = list(model.named_parameters())
    matrices = [p for n, p in named if p.ndim == 2 and ".h." in n]
    embeddings = [p for n, p in named if p.ndim == 2 and ".h." not in n]
    others = [p for _, p in named if p.ndim < 2]
    groups = [{"params": embeddings, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(matrices, lr=10 * lr, weight_decay=0.1),
        torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95)),
    ]


def rate(step: int, steps: int) -> float:
    """Return the factor on the learning rate: linear warm-up over `WARM_UP` steps, linear decay in the second half."""
    return min(1.0, step / WARM_UP, 2 * (steps - step + 1) / steps)


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Save the model (float16) and the tokenizer to a folder that transformers 4 and 5 can read."""
    model.generation_config.do_sample = True  # otherwise `transformers serve` ignores the temperature
    model.half().save_pretrained(out)
    model.float()
    tokenizer.save_pretrained(out)
    file = out / "tokenizer_config.json"
    settings = {**json.loads(file.read_text("utf-8")), "tokenizer_class": "PreTrainedTokenizerFast"}
    settings.pop("backend", None)
    file.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


@torch.no_grad()
def held_out_loss(model: Any, batch: torch.Tensor) -> float:
    """Return the mean cross-entropy per token, in nats, on documents outside the training data."""
    model.eval()
    losses = [loss_of(model, some) for some in batch.split(16)]
    model.train()
    return float(torch.stack(losses).mean())


def loss_of(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of predicting each next token of x, (B, CONTEXT) tokens."""
    return cross_entropy(model(x).logits[:, :-1].flatten(0, 1), x[:, 1:].flatten())


class Checkpoint:
    """The state from which an interrupted training resumes, in one file that is replaced atomically.

        checkpoint = Checkpoint(out / "checkpoint.pt", model, optimizers(model, 2e-3), {"steps": 1600})
        first, log, seconds = checkpoint.read()

    Args:
        file: The checkpoint's file.
        model: The model to save and restore.
        optimizers: Its optimizers.
        options: The training's options; a checkpoint with others is refused.
    """

    def __init__(
        self, file: Path, model: Any, optimizers: Sequence[torch.optim.Optimizer], options: dict[str, Any]
    ) -> None:
        self.file, self.model, self.optimizers, self.options = file, model, optimizers, options

    def read(self) -> tuple[int, list[dict[str, Any]], float]:
        """Restore the model and the optimizers, and return (steps done, log, CPU seconds spent)."""
        if not self.file.is_file():
            return 0, [], 0.0
        kept = torch.load(self.file, weights_only=True)
        if kept["options"] != self.options:
            raise click.UsageError(f"{self.file} was made with {kept['options']}; use these options or another --out")
        self.model.load_state_dict(kept["model"])
        for optimizer, state in zip(self.optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        return kept["step"], kept["log"], kept["seconds"]

    def write(self, step: int, log: list[dict[str, Any]], seconds: float) -> None:
        """Save the state after `step` steps."""
        states = [o.state_dict() for o in self.optimizers]
        kept = {"options": self.options, "model": self.model.state_dict(), "optimizers": states}
        beside = self.file.with_suffix(".new")
        torch.save({**kept, "step": step, "log": log, "seconds": seconds}, beside)
        os.replace(beside, self.file)


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=HERE)
@click.option("--steps", default=1600)
@click.option("--batch", default=12)
@click.option("--layers", default=3)
@click.option("--width", default=128)
@click.option("--vocabulary", default=1536)
@click.option("--documents", default=20_000, help="Number of texts the tokenizer is trained on.")
@click.option("--lr", default=2e-3)
@click.option("--stop", type=int, help="Stop after this step; the same command resumes later.")
def main(out: Path, stop: int | None, **options: Any) -> None:
    """Train from scratch, or resume from the checkpoint in --out."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    steps = options["steps"]
    tokenizer = train_tokenizer(options["vocabulary"], options["documents"])
    model = build(len(tokenizer), tokenizer.eos_token_id, options["layers"], options["width"])
    both = optimizers(model, options["lr"])
    rates = [[group["lr"] for group in o.param_groups] for o in both]
    checkpoint = Checkpoint(out / "checkpoint.pt", model, both, options)
    done, log, spent = checkpoint.read()
    test = rows(tokenizer, HELD_OUT, 64)
    started = time.process_time()
    for step in range(done + 1, steps + 1):
        for optimizer, full in zip(both, rates, strict=True):
            for group, lr in zip(optimizer.param_groups, full, strict=True):
                group["lr"] = lr * rate(step, steps)
        loss = loss_of(model, rows(tokenizer, step, options["batch"]))
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in both:
            optimizer.step()
        if step % EVERY == 0 or step in (steps, stop):
            seconds = spent + time.process_time() - started
            tokens = step * options["batch"] * CONTEXT
            line = {"step": step, "tokens": tokens, "loss": round(held_out_loss(model, test), 4)}
            log.append({**line, "cpu seconds": round(seconds)})
            click.echo(json.dumps(log[-1]))
            checkpoint.write(step, log, seconds)
        if step == stop:
            return
    save(model, tokenizer, out)
    (out / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    checkpoint.file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
