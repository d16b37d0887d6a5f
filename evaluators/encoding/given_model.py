"""Checks and identifies a model that is given as objects: open_clip's (model, preprocess, tokenizer)."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from promptsearch.errors import InputError

#: The name of such a model is its type and this; no name of open_clip has spaces.
GIVEN = " given as objects"

_REMEDY = "give an open_clip triple (model, preprocess, tokenizer)"

#: Texts by whose tokens tokenizers of the same type are told apart.
PROBES = (
    "a photo of a cat.",
    "The Quick_Brown fox, jumps over 12 lazy dogs & 3456 pigs; isn't it?",
    'itap of one large "motor-car": blurry, dark, bright, low resolution - sketch/painting/sculpture!',
    "airplane automobile bird deer dog frog horse ship truck red green blue",
)


def check_triple(model: Any, preprocess: Any, tokenizer: Any) -> None:
    """Check that these are a model, its transform for evaluation and its tokenizer, by trying the last two.

    Args:
        model: An open_clip model.
        preprocess: Its transform of one PIL picture to (3, H, W).
        tokenizer: Its tokenizer.

    Raises:
        InputError: One of them is something else; the message says which.
    """
    import torch

    kind = type(model).__name__
    if isinstance(model, torch.nn.DataParallel):
        raise InputError(f"--model: a {kind} is a wrapper; give its .module")
    needed = ("encode_image", "encode_text", "visual", "logit_scale")
    if not isinstance(model, torch.nn.Module) or not all(hasattr(model, name) for name in needed):
        saved = "; a model of transformers is given as local-dir:FOLDER, the folder that its save_pretrained wrote"
        more = saved if type(model).__module__.startswith("transformers.") else ""
        raise InputError(f"--model: a {kind} is no model of open_clip; {_REMEDY}{more}")
    wide, high = _noise(48, 80), _noise(80, 48)
    shapes = {_tried("preprocess", preprocess, p).shape for p in (wide, high)}
    if len(shapes) > 1 or len(shape := shapes.pop()) != 3 or shape[0] != 3:
        raise InputError(f"--model: its preprocess does not make pictures of one shape (3, H, W); {_REMEDY}")
    if (size := _picture_size(model.visual)) is not None and shape[1:] != size:
        raise InputError(f"--model: its preprocess makes {shape[1:]} pixels, and it needs {size}; {_REMEDY}")
    first, *others = (_tried("preprocess", preprocess, _noise(64, 64)) for _ in range(5))
    if not all(np.array_equal(first, other, equal_nan=True) for other in others):
        raise InputError(
            "--model: its preprocess gives another result each time, as for training; give the transform for "
            "evaluation, the last one of open_clip.create_model_and_transforms"
        )
    ids = _tried("tokenizer", tokenizer, list(PROBES))
    if ids.ndim != 2 or len(ids) != len(PROBES) or ids.dtype.kind not in "iu":
        raise InputError(f"--model: its tokenizer does not make token ids (n, L) of n texts; {_REMEDY}")


def _picture_size(visual: Any) -> tuple[int, int] | None:
    """Return the height and width of the pictures that a tower needs; None if it may take others, too."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import VisionTransformer

    if not isinstance(visual, (ModifiedResNet, VisionTransformer)):
        return None
    size = visual.image_size
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def prepares_alike(one: Any, other: Any) -> bool:
    """Return whether two transforms of pictures give the same result for noise of several shapes."""
    pictures = [_noise(48, 80), _noise(80, 48), _noise(640, 480)]
    return all(np.allclose(np.asarray(one(p)), np.asarray(other(p)), atol=1e-4) for p in pictures)


def _noise(width: int, height: int) -> Any:
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _tried(name: str, function: Any, argument: Any) -> np.ndarray:
    """Return the result of a part of the triple; if it fails, it is something else."""
    if not callable(function):
        raise InputError(f"--model: its {name} is of type {type(function).__name__}; {_REMEDY}")
    try:
        return np.asarray(function(argument))
    except Exception as e:  # it may be any function
        why = (str(e).splitlines() or [""])[0] or type(e).__name__
        raise InputError(f"--model: its {name} fails ({why[:120]}); {_REMEDY}") from e


def fingerprint_of(model: Any, preprocess: Any, tokenizer: Any) -> str:
    """Return a digest of a triple that differs whenever its vectors may, and is the same in every process.

    Weights are not enough: the activation, the number of heads, the pooling and masks leave no trace in them.

    Args:
        model: An open_clip model.
        preprocess: Its transform.
        tokenizer: Its tokenizer.
    """
    import torch

    digest = hashlib.sha256(_without_addresses(preprocess).encode())
    for line in _structure(model):
        digest.update(line.encode())
    for name, tensor in {**dict(model.named_buffers()), **model.state_dict()}.items():  # masks are no part of the state
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor) and not tensor.is_quantized:
            digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:  # the packed weights of a quantised layer
            torch.save(tensor, packed := io.BytesIO())
            digest.update(packed.getvalue())
    code = getattr(tokenizer, "__code__", None)  # of a function, for what the probes do not tell
    told = type(tokenizer).__name__, code and (code.co_code, code.co_names, code.co_consts)
    digest.update(_without_addresses(told).encode())
    digest.update(np.ascontiguousarray(tokenizer(list(PROBES)), dtype=np.int64).data)
    return digest.hexdigest()[:32]


def _without_addresses(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _structure(model: Any) -> Iterator[str]:
    """Yield the type and the plain attributes of each module, such as the number of heads."""
    for name, module in model.named_modules():
        values = {key: _plain(value) for key, value in vars(module).items() if key[0] != "_" and key != "training"}
        yield repr((name, type(module).__qualname__, sorted((k, v) for k, v in values.items() if v is not None)))


def _plain(value: Any) -> str | None:
    """Return a plain value, or the name of a function, as a text that is the same in every process."""
    if isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return None if None in items else repr(items)
    named = getattr(value, "__qualname__", None)
    return f"{getattr(value, '__module__', '')}.{named}" if callable(value) and named else None
