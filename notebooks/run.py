"""Runs the notebooks of this folder anew, in place: `make notebooks`.

`jupyter execute` would leave the time of every cell in them, and cut what they print where the machine was slow.
"""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

for path in sorted(Path(__file__).parent.glob("*.ipynb")):
    print(path, flush=True)
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=None, record_timing=False, coalesce_streams=True, resources=where).execute()
    nbformat.write(notebook, path)
