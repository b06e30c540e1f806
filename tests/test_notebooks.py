"""The notebooks run, and what is committed of them is what a run leaves."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
IDS = [path.stem for path in NOTEBOOKS]
MAX_BYTES = 300_000
PLACE = re.compile(r"(?<![\w.])/(tmp|home|root|Users|usr|var|opt|private)/|[A-Z]:\\")  # on somebody's machine


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


def result(notebook):
    """The numbers of the cell `result` by what stands before each."""
    (cell,) = [cell for cell in notebook.cells if cell.id == "result"]
    return {name.strip(): float(value) for name, value in re.findall(r"^(.+?) +(-?[\d.]+)", printed(cell), re.M)}


def run(name, folder):
    """What a notebook comes to that is run in a folder, without leaving anything in the repository."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    before = sorted(folder.glob("[!.]*"))
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=None, startup_timeout=600, resources=where).execute()
    assert sorted(folder.glob("[!.]*")) == before
    return result(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_committed_notebooks_are_those_of_one_run_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < MAX_BYTES
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(cell.metadata for cell in cells)  # such as when it ran
    assert 8 <= len(notebook.cells) <= 30
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    pictures = [output for output in outputs if any(kind.startswith("image/") for kind in output.get("data", {}))]
    assert len(pictures) >= 2
    assert result(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_committed_outputs_name_no_machine(path):
    for cell in code_cells(nbformat.read(path, as_version=4)):
        for output in cell.outputs:
            texts = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))]
            for text in texts:
                assert not PLACE.search(text), text


def test_readme_names_every_notebook():
    readme = (ROOT / "README.md").read_text()
    assert set(re.findall(r"notebooks/(\w+\.ipynb)", readme)) == {path.name for path in NOTEBOOKS}


def test_first_steps_learn(builtin_clips):
    numbers = run("first_steps", ROOT / "notebooks")
    assert numbers["loss at first"] > 0.99 > 0.95 > numbers["loss at last"]
    assert numbers["saved and loaded"] == 0


@pytest.mark.full
def test_finetuning_learns_and_beats_random_weights():
    numbers = run("finetune_your_videos", ROOT)
    assert numbers["finetune"] > 3 * numbers["chance"]
    assert numbers["finetune"] > numbers["scratch"] + 10


@pytest.mark.full
def test_features_tell_scenes_apart_and_true_statistics_flatter(builtin_clips):
    numbers = run("reconstructions_and_features", ROOT / "notebooks")
    assert numbers["held out: loss over that of mean colour"] < 0.95
    assert numbers["no model, true statistics"] < numbers["the trained model, error on hidden pixels"]
    assert numbers["cosine of moments of one scene"] > numbers["cosine of moments of two scenes"] + 0.5
