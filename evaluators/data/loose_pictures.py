"""Features of picture files that belong to no data set, some of which may be damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.cache import Cache, digest_of
from promptsearch.evaluators.data.encoded_picture import DECODING, StoredPicture, printable_path
from promptsearch.evaluators.data.folder_walk import Walk, is_picture
from promptsearch.evaluators.encoding.encoder import Encoder

#: Pictures that are encoded and cached together.  A killed process loses at most these.
CHUNK = {"cpu": 256, "cuda": 2048}

#: Vectors (n, D) of a chunk, and for each picture the reason why it has no vector, or None. Such a picture's row is 0.
Encoded = tuple[np.ndarray, list[str | None]]


def find_pictures(given: Sequence[str | os.PathLike[str]]) -> tuple[list[str], list[str]]:
    """Find picture files, including those in folders at any depth; each is returned once.

    The files of a folder are sorted by path. A file with the suffix of a picture counts as one, whatever its content.

    Args:
        given: Files and folders.

    Returns:
        The paths, and a sentence for each folder in which something was left out.

    Raises:
        InputError: A file does not exist, or there is no picture.
    """
    found: dict[str, None] = {}
    notes = []
    for path in map(Path, given):
        if path.is_dir():
            walk = Walk(path, lenient=True)
            found |= dict.fromkeys(map(str, walk.files(path, _wanted)))
            told = [walk.left_out.sentence(), walk.led_out_sentence()]
            notes += [f"{printable_path(path)}: {sentence}" for sentence in told if sentence]
        elif path.exists() or path.is_symlink():
            found[str(path)] = None
        else:
            raise InputError(f"{printable_path(path)}: no such file or folder; name pictures or a folder of them")
    if not found:
        where = ", ".join(printable_path(p) for p in list(given)[:3]) or "nothing"
        raise InputError(f"no picture in {where}; {' '.join(notes) or 'name a folder that has some'}")
    return list(found), notes


def _wanted(path: Path, walk: Walk) -> bool:
    try:
        return is_picture(path, walk)
    except PromptSearchError:  # the picture needs a package; encoding it reports that
        return True


def stamp(path: str) -> list[int] | None:
    """Return size, modification and change time (ns) of a file; None if it is gone.

    A file that is replaced by one of the same size and modification time, as an unpacked archive has them, has another
    change time.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def encode_chunks(encoder: Encoder, cache: Cache, chunks: Sequence[Sequence[str]]) -> Iterator[Encoded]:
    """Encode files in chunks; a damaged file does not stop the others.

    Chunks without damaged files are cached under the files' paths, sizes and times of modification and change.

    Args:
        encoder: The model.
        cache: The cache of features.
        chunks: Paths of the files of each chunk.

    Yields:
        Vectors and errors of each chunk, in order.

    Raises:
        PromptSearchError: Encoding failed for another reason than a damaged picture, e.g. memory ran out.
    """
    keys = [_key(encoder, chunk) for chunk in chunks]
    pictures = [[StoredPicture(None, path, "picture") for path in chunk] for chunk in chunks]
    cached = [cache.holds("photos", key) for key in keys]
    ahead = _encoded(encoder, [p for p, known in zip(pictures, cached, strict=True) if not known])
    for n, key in enumerate(keys):
        if cached[n] and (block := cache.get("photos", key)) is not None:
            yield block.arrays["features"], [None] * len(chunks[n])
            continue
        vectors, errors = next(_encoded(encoder, [pictures[n]]) if cached[n] else ahead)  # the cached block was damaged
        if not any(errors):
            cache.add("photos", key, {"features": vectors})
        yield vectors, errors


def _key(encoder: Encoder, chunk: Sequence[str]) -> dict[str, object]:
    files = digest_of([[os.path.abspath(path), stamp(path)] for path in chunk])
    return {**encoder.spec.picture_key, "decoding": DECODING, "files": files}


def _encoded(encoder: Encoder, chunks: Sequence[Sequence[StoredPicture]]) -> Iterator[Encoded]:
    """Encode chunks, leaving out their damaged pictures."""
    at = 0
    while at < len(chunks):
        try:
            for _, vectors in encoder.encode_blocks(chunks[at:]):
                at += 1
                yield vectors, [None] * len(vectors)
        except PromptSearchError as error:
            at += 1
            yield _without_damaged(encoder, chunks[at - 1], error)


def _without_damaged(encoder: Encoder, chunk: Sequence[StoredPicture], error: PromptSearchError) -> Encoded:
    """Encode those pictures of a chunk that can be decoded; `error` is the error that encoding all of them raised."""
    errors: list[str | None] = []
    for picture in chunk:
        try:
            picture.open()
            errors.append(None)
        except PromptSearchError as e:
            errors.append(str(e))
    if not any(errors):
        raise error
    good = [i for i, e in enumerate(errors) if e is None]
    vectors = np.zeros((len(chunk), int(encoder.info["embed_dim"])), np.float32)
    if good:
        vectors[good] = encoder.encode_pictures([chunk[i] for i in good])
    return vectors, errors
