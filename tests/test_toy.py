"""pnn-toy prints what PHYSICS in closed form says, through the library's own training modes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pnn.config import checked
from pnn.errors import UserError
from pnn.toy import toy


def test_the_toy_s_tables_are_the_closed_form(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = toy(checked("toy", [f"out={tmp_path}/new/toy.json"]))
    assert json.loads((tmp_path / "new/toy.json").read_text()) == json.loads(json.dumps(report))
    for row in report["gaps"]:
        n = row["applications"]
        law = 1.005 ** ((1.1**n - 1) / 0.1) - 1
        assert row["in_silico"]["output_gap"] == pytest.approx(law, rel=1e-9)
        assert row["in_silico"]["gradient_gap"] == pytest.approx(law, rel=1e-9)
        assert row["pat"] == {"output_gap": 0, "gradient_gap": pytest.approx(1.005**n - 1, rel=1e-9)}
    assert report["learned"]["in_silico"] == pytest.approx(1.10711, abs=5e-6)
    assert report["learned"]["pat"] == pytest.approx(1.10860, abs=5e-6)
    assert report["on_the_device"]["in_silico"] == pytest.approx(92_100, abs=50)
    printed = capsys.readouterr().out
    for figure in ("33.06 %", "10.49 %", "1.10711", "1.10860"):
        assert figure in printed


@pytest.mark.parametrize("wrong", ["steps=0", "times=0", "lr=-1", "exponent=0"])
def test_the_toy_refuses_what_cannot_be(wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        checked("toy", [wrong])
