"""Pushes a winner to a repository of a model hub."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.evaluators.data.hub import hub_reachable
from promptsearch.reports.export import write
from promptsearch.reports.folder import Exported, write_folder
from promptsearch.reports.model_card import model_card

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_repo(repo: str) -> None:
    """Check, before anything is computed, that a name can be the name of a repository.

    Raises:
        InputError: It cannot.
    """
    if not _NAME.fullmatch(repo):
        raise InputError(f"--repo {repo}: not the name of a repository; write OWNER/NAME")


def push(exported: Exported, repo: str, private: bool = False) -> str:
    """Write a winner as a folder and commit it to a repository, which is created if it does not exist.

    Args:
        exported: The winner with its classifier and result.
        repo: OWNER/NAME.
        private: Whether a new repository is private.

    Returns:
        The repository's address.

    Raises:
        InputError: The name cannot be the name of a repository.
        PromptSearchError: The hub cannot be reached, or refuses the commit.
    """
    check_repo(repo)
    reachable, reason = hub_reachable()
    if not reachable:
        raise PromptSearchError(f"--repo {repo}: the hub cannot be reached ({reason}); use --to folder")
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "winner"
        write_folder(exported, folder)
        card = model_card(exported.winner, exported.classifier, exported.result, "open_clip_torch", repo)
        write(folder / "README.md", card)
        disable_progress_bars()
        api = HfApi()
        try:
            created = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                commit_message=f"Winner of the promptsearch run {exported.winner.study}",
            )
        except Exception as e:  # the hub's client raises many types of errors; each means that nothing was pushed
            raise PromptSearchError(
                f"--repo {repo}: cannot be pushed ({_reason(e)}); log in with `hf auth login` or set HF_TOKEN to a "
                "token that may write there"
            ) from e
    return str(created)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
