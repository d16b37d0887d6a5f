"""optuna-dashboard, started for real, opens a finished run and shows templates and scores."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from trial_runs import PROBLEM, document, prepare, recorded


def test_the_dashboard_shows_a_run(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed: pip install -e '.[dev]'")
    storage = tmp_path / "runs.db"
    args = ["--bank", prepare(tmp_path), "--storage", storage, "--trials", "10", "--startup", "4", "--study", "r"]
    doc = document("tpe", *PROBLEM, *args)
    front = document("random", *PROBLEM, *args[:6], "--study", "several aims", "--pareto")["front"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; from optuna_dashboard._cli import main; sys.exit(main())"
    options = ["--host", "127.0.0.1", "--port", str(port), f"sqlite:///{storage}"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            summary, several = ask(server, port, "/api/studies")["study_summaries"]
            assert (summary["study_name"], several["study_name"]) == ("r", "several aims")
            study = ask(server, port, f"/api/studies/{summary['study_id']}?after=0")
            assert study["directions"] == ["minimize"]
            attrs = [{a["key"]: a["value"] for a in t["user_attrs"]} for t in study["trials"]]
            shown = [(tuple(json.loads(a["templates"])), float(a["xent"])) for a in attrs]
            assert shown == [(t, pytest.approx(x)) for _, t, x in recorded("r", storage)]
            assert all(0 <= float(a["accuracy"]) <= 1 for a in attrs)
            values = [float(t["values"][0]) for t in study["trials"]]
            assert min(values) == pytest.approx(doc["winner"]["support"]["xent"], abs=1e-6)
            names = {p["name"] for t in study["trials"] for p in t["params"]}
            assert {"pattern", "[det]", "[context]"} <= names
            aims = ask(server, port, f"/api/studies/{several['study_id']}?after=0")
            assert aims["directions"] == ["minimize", "maximize", "minimize"]
            assert aims["objective_names"] == ["xent", "fluency", "words"]
            shown_best = {tuple(json.loads(a["value"])) for t in aims["best_trials"] for a in t["user_attrs"]
                          if a["key"] == "templates"}  # fmt: skip
            assert shown_best == {tuple(r["templates"]) for r in front}
        finally:
            server.terminate()


def ask(server: subprocess.Popen[bytes], port: int, path: str) -> Any:
    """What the server answers, once it does."""
    until = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None and time.monotonic() < until, "the dashboard does not answer"
            time.sleep(0.1)
