from __future__ import annotations

import numpy as np
import onnxruntime as ort
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from demo.smoother import Constants, forecast
from demo.smoother_graph import graph_of
from worker.guard import faults

CONSTANTS = Constants(eve=0.1, holiday_factor=0.2, level_power=0.5)
SESSION = ort.InferenceSession(graph_of(CONSTANTS, name="test").SerializeToString())

SALES = st.floats(0, 9999, width=32) | st.just(0.0)
HOLIDAY = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0]) | st.floats(0, 1, width=32)


@given(st.data(), st.integers(1, 5))
def test_graph_equals_numpy_and_passes_the_guard(data: st.DataObject, rows: int) -> None:
    inputs = {
        "sales": data.draw(arrays(np.float32, (rows, 30), elements=SALES)),
        "holiday": data.draw(arrays(np.float32, (rows, 30), elements=HOLIDAY)),
        "holiday_next": data.draw(arrays(np.float32, (rows, 14), elements=HOLIDAY)),
    }
    (values,) = SESSION.run(None, inputs)
    expected = forecast(CONSTANTS, **inputs)
    scale = float(inputs["sales"].max()) + 1
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-3 * scale)
    assert faults(values) == []
    alone = np.concatenate([SESSION.run(None, {k: v[i : i + 1] for k, v in inputs.items()})[0] for i in range(rows)])
    np.testing.assert_allclose(values, alone, rtol=1e-4, atol=1e-4 * scale)
