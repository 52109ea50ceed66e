"""The program a run starts from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import baseline
from sandbox.baseline import BaselineError, seed_program
from sandbox.knobs import read_knobs

TABLES = "MUON = Knobs(lr=0.02)\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "optim.py").write_text(TABLES)
    (tmp_path / "tuned").mkdir()
    monkeypatch.setattr(baseline, "_package_folder", lambda: tmp_path)
    return tmp_path


def test_without_tuned_knobs_the_seed_is_the_shipped_file(package: Path) -> None:
    assert seed_program("cpu") == TABLES


def test_tuned_knobs_are_written_into_the_tables(package: Path) -> None:
    (package / "tuned" / "cpu.json").write_text(json.dumps({"knobs": {"MUON.lr": 0.035}}))

    assert seed_program("cpu") == "MUON = Knobs(lr=0.035)\n"
    assert seed_program("micro") == TABLES


@pytest.mark.parametrize("text", ["{", "{}", '{"knobs": {"MUON.beta": 1}}', '{"knobs": 3}', "[]"])
def test_tuned_knobs_that_do_not_fit_the_file_are_refused(package: Path, text: str) -> None:
    (package / "tuned" / "cpu.json").write_text(text)

    with pytest.raises(BaselineError, match=r"cpu\.json"):
        seed_program("cpu")


def test_a_missing_optimizer_file_is_refused(package: Path) -> None:
    (package / "optim.py").unlink()

    with pytest.raises(BaselineError, match="optimizer file"):
        seed_program("cpu")


def test_the_real_seed_has_the_tuned_values_and_the_shipped_code() -> None:
    folder = Path(baseline.__file__).parent.parent / "nanochat" / "tuned"
    for file in sorted(folder.glob("*.json")):
        tuned = json.loads(file.read_text())["knobs"]
        knobs = read_knobs(seed_program(file.stem))
        assert {name: knobs[name].value for name in tuned} == tuned, file.name


def test_making_the_seed_imports_neither_torch_nor_the_substrate() -> None:
    code = (
        "import sys; from sandbox.baseline import seed_program; seed_program('cpu'); "
        "print(sorted({'torch', 'nanochat'} & set(sys.modules)))"
    )

    # the interpreter that runs this test, on a constant
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
