"""Lists the runs of a storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptsearch.config import RunConfig
from promptsearch.errors import PromptSearchError
from promptsearch.runs.store.optuna_rows import counts
from promptsearch.runs.store.record import readable
from promptsearch.runs.store.storage import masked, open_storage, sound

if TYPE_CHECKING:
    import optuna


def summaries(url: str | None = None) -> list[dict[str, Any]]:
    """Return a row for each run, oldest first, with study, model, dataset, shots, seed, trials, state, test accuracy.

    For a comparison, `trials` counts its cells, and its data sets and shots (both lists) and `draws` are those of its
    last result. A run whose record is damaged has only a name and that state.

    Args:
        url: URL of the storage; by default the user's own.

    Raises:
        NoSuchRun: There is no storage, or it has no tables of Optuna.
        PromptSearchError: The storage cannot be read.
    """
    import optuna

    storage = open_storage(url, create=False)
    rows = []
    with readable(masked(str(storage.url))):
        # a query of our own, because Optuna would read all attributes of all studies
        with storage.engine.connect() as connection:
            found_names = connection.exec_driver_sql("SELECT study_name FROM studies ORDER BY study_id")
            names = [str(row[0]) for row in found_names]
        for name in names:
            row = dict.fromkeys(("command", "model", "dataset", "shots", "seed", "trials", "started", "test"))
            try:
                with sound(f"run {name!r}"):
                    found = _summary(optuna.load_study(study_name=name, storage=storage), storage)
            except PromptSearchError:
                found = {"study": name, **row, "state": "damaged"}
            if found is not None:
                rows.append(found)
    return rows


def _summary(study: optuna.Study, storage: optuna.storages.RDBStorage) -> dict[str, Any] | None:
    """Return the row of a study, or None if another program made it."""
    import optuna

    attrs = study.user_attrs
    result = attrs.get("result")
    if attrs.get("config") is None:
        return None
    config = RunConfig.from_dict(attrs["config"])
    one_draw = config.dataset is not None  # a comparison has several data sets
    row: dict[str, Any] = {"study": study.study_name, "command": config.command, "model": config.model}
    row |= {"dataset": config.dataset, "shots": config.search.shots if one_draw else None}
    row |= {"seed": config.search.seed if one_draw else None}
    row["trials"] = counts(storage, study._study_id)[optuna.trial.TrialState.COMPLETE]  # reads no trial
    # Trials, or a comparison's cells, may have been added after the result; a training has none.
    made = result["run"] if result else {}
    counted = made.get("trials", made.get("cells", row["trials"])) if result else None
    row["state"] = "finished" if counted == row["trials"] else "unfinished"
    if result and config.command == "compare":
        row |= {"dataset": result["datasets"], "shots": result["shots"], "draws": result["seeds"]}
    row["started"] = attrs.get("about", {}).get("started")
    test = result["winner"]["test"]["accuracy"] if result and "winner" in result else None
    row["test"] = None if test is None else float(test)
    return row
