"""What holds for the package as a whole."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_import_contracts_are_kept():
    checked = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout
    assert "2 kept, 0 broken" in checked.stdout


def test_importing_starts_no_device():
    code = "import train; from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    assert python(code).strip() == "False"
