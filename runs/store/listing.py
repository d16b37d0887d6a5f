"""The runs of a storage, in a line each."""

from __future__ import annotations

from typing import Any

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
        config, result = attrs.get("config"), attrs.get("result")
        if config is None:
            continue
        row: dict[str, Any] = {"study": study.study_name}
        row |= {k: config.get(k) for k in ("command", "model", "dataset", "shots", "seed")}
        row["trials"] = storage.get_n_trials(study._study_id, (optuna.trial.TrialState.COMPLETE,))
        # Trials, or a comparison's cells, may have been added after the result; a training has none.
        made = result["run"] if result else {}
        counted = made.get("trials", made.get("cells", row["trials"])) if result else None
        row["state"] = "finished" if counted == row["trials"] else "unfinished"
        if result and config.get("command") == "compare":
            row |= {"dataset": result["datasets"], "shots": result["shots"], "draws": result["seeds"]}
        row["started"] = attrs.get("about", {}).get("started")
        row["test"] = result["winner"]["test"]["accuracy"] if result and "winner" in result else None
        rows.append(row)
    return rows

