"""The runs of a storage, in a line each."""

from __future__ import annotations

from typing import Any

from promptsearch.config import RunConfig
from promptsearch.runs.store.storage import open_storage


def summaries(url: str | None = None) -> list[dict[str, Any]]:
    """One row per run, oldest first: study, model, dataset, shots, seed, trials, state, test accuracy or None.

    A comparison's trials are its cells; its data sets, shots (both lists) and `draws` are those of its last result.
    """
    import optuna

    storage = open_storage(url, create=False)
    rows = []
    for study in storage.get_all_studies():
        attrs = study.user_attrs
        result = attrs.get("result")
        if attrs.get("config") is None:
            continue
        config = RunConfig.from_dict(attrs["config"])
        one_draw = config.dataset is not None  # a comparison has several
        row: dict[str, Any] = {"study": study.study_name, "command": config.command, "model": config.model}
        row |= {"dataset": config.dataset, "shots": config.search.shots if one_draw else None}
        row |= {"seed": config.search.seed if one_draw else None}
        row["trials"] = storage.get_n_trials(study._study_id, (optuna.trial.TrialState.COMPLETE,))
        # Trials, or a comparison's cells, may have been added after the result; a training has none.
        made = result["run"] if result else {}
        counted = made.get("trials", made.get("cells", row["trials"])) if result else None
        row["state"] = "finished" if counted == row["trials"] else "unfinished"
        if result and config.command == "compare":
            row |= {"dataset": result["datasets"], "shots": result["shots"], "draws": result["seeds"]}
        row["started"] = attrs.get("about", {}).get("started")
        row["test"] = result["winner"]["test"]["accuracy"] if result and "winner" in result else None
        rows.append(row)
    return rows
