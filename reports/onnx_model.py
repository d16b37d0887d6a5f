"""Writes a classifier as an ONNX model, which maps pixels to probabilities."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.runs.classifier import Classifier

#: Version of ONNX's operators; onnxruntime 1.14 (2023) and later support it.
OPSET = 18

#: Largest difference of a cosine between ONNX and PyTorch.
CLOSE = 1e-4


def write_onnx(classifier: Classifier, file: Path) -> None:
    """Write picture tower and class weights as one model, and check that it computes what PyTorch does.

    Its input is `pixels` (N, 3, H, W), preprocessed; its outputs are `probabilities` (N, C) and unit `features` (N, D).

    Args:
        classifier: The classifier.
        file: The ONNX file to write.

    Raises:
        PromptSearchError: A package is missing, or the model cannot be expressed in ONNX or computes something else
            there.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise PromptSearchError(f"--to onnx: {package} is not installed; pip install 'promptsearch[onnx]'")
    import torch

    model = classifier.encoder.model
    size = model.visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    tower = _tower(classifier).eval().cpu()
    pixels = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    try:
        with _quiet(), torch.inference_mode():
            torch.onnx.export(
                tower,
                (pixels,),
                str(file),
                input_names=["pixels"],
                output_names=["probabilities", "features"],
                dynamic_shapes={"pixels": {0: torch.export.Dim("N", min=1, max=1 << 16)}},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
            )
    except OSError as e:
        raise InputError(
            f"{file}: cannot be written ({e.strerror or e}); free some space, or name another --out"
        ) from e
    except Exception as e:  # the exporter raises errors of its own, of onnxscript and of torch
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
        raise PromptSearchError(f"--to onnx: this model cannot be expressed in ONNX ({reason}); use --to folder") from e
    finally:
        model.to(classifier.encoder.spec.device)
    _check(tower, file, torch.cat([pixels, pixels.flip(3)[:1]]))


def _tower(classifier: Classifier) -> Any:
    import torch

    class Tower(torch.nn.Module):
        """The picture tower, and the softmax over scaled cosines."""

        classifier: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.visual = classifier.encoder.model.visual
            self.register_buffer("classifier", torch.from_numpy(classifier.class_weights.T.copy()))  # (D, C)
            self.scale = classifier.calibration.logit_scale

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = torch.nn.functional.normalize(self.visual(pixels), dim=-1)  # (N, D)
            return (self.scale * features @ self.classifier).softmax(dim=-1), features

    return Tower()


def _check(tower: Any, file: Path, pixels: Any) -> None:
    """Run the file on a batch of another size than it was exported with, and compare the result with PyTorch."""
    import numpy as np
    import onnxruntime
    import torch

    with torch.inference_mode():
        ours = tower(pixels)[1].numpy()
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["features"], {"pixels": pixels.numpy()})
    far = float(np.abs(ours - theirs).max())
    if not far <= CLOSE:
        raise PromptSearchError(
            f"--to onnx: the model differs by {far:.2g} from PyTorch's in a feature, more than {CLOSE}; use --to folder"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter prints and logs."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
