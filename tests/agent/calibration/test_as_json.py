from __future__ import annotations

import json
import math

from agent.calibration.as_json import as_json
from agent.calibration.operating import Point, rate_of


def test_a_number_that_is_none_becomes_null() -> None:
    point = Point(
        gain_bpb=0.0, accepted=rate_of(1, 4), mean_runs=math.inf, mean_measured_bpb=math.nan
    )

    found = json.loads(as_json({"points": (point,)}))

    assert found["points"][0]["mean_measured_bpb"] is None
    assert found["points"][0]["mean_runs"] is None
    assert found["points"][0]["accepted"]["count"] == 1
