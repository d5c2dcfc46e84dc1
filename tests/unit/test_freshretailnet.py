from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from demo import freshretailnet
from demo.bakery import DataUnavailableError

STORES = 5


def daily_frame(days: int = 10) -> pd.DataFrame:
    rows = [
        {
            "city_id": store // 3,
            "store_id": store,
            "product_id": product,
            "dt": str(np.datetime64("2024-03-28") + day),
            "sale": 0.0 if (store, day) == (0, 3) else 1.0 + product,
            "oos_hours": 2 if (store, day) == (0, 3) else 0,
            "discount": 0.0 if product == 9 else (1.0 if (store, day) == (0, 3) else 0.8),
            "holiday_flag": int(day in {2, 3, 4}),
            "activity_flag": 0 if (store, day) == (0, 3) else 1,
            "avg_temperature": 20.0,
        }
        for product in (1, 9)
        for store in range(STORES)
        for day in range(days)
    ]
    return pd.DataFrame(rows)


def original_frame() -> pd.DataFrame:
    """The published file's layout: other names, and columns that aren't used."""
    frame = daily_frame().rename(columns={"sale": "sale_amount", "oos_hours": "stock_hour6_22_cnt"})
    return frame.assign(hours_sale=[[0.0] * 24] * len(frame), precpt=1.0)


@pytest.mark.parametrize("frame", [daily_frame(), original_frame()], ids=["daily", "original"])
def test_both_layouts_give_the_same_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: pd.DataFrame
) -> None:
    path = tmp_path / "frame.parquet"
    frame.sample(frac=1, random_state=1).to_parquet(path)
    monkeypatch.setenv(freshretailnet.VARIABLE, str(path))
    series = freshretailnet.load()
    assert set(series.sku_ids) == {"product-1"}, "product 9 is a giveaway"
    assert series.store_ids == tuple(f"store-{store}" for store in range(STORES))
    assert series.sales[0].tolist() == [2.0, 2.0, 2.0, 0.0] + [2.0] * 6
    assert series.in_stock is not None
    assert np.argwhere(series.in_stock < 1).tolist() == [[0, 3]]


def test_promotions_are_planned_not_realised() -> None:
    series = freshretailnet.from_frame(daily_frame())
    assert series.promo is not None
    assert series.discount is not None
    assert series.promo[0, 3] == 1.0, "store 0 sold nothing that day, the four others were in the promotion"
    assert series.discount[0, 3] == pytest.approx(0.8)


def test_holiday_is_only_what_the_weekday_does_not_tell() -> None:
    series = freshretailnet.from_frame(daily_frame())
    assert series.holiday is not None
    # 2024-03-30 and -31 are a weekend, 2024-04-01 a Monday.
    assert series.holiday[0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_planned_prefers_the_city_then_all_cities_then_nothing() -> None:
    realised = np.array([[1.0], [1.0], [1.0], [1.0], [5.0], [7.0]], dtype=np.float32)
    sales = np.ones_like(realised)
    products = np.array([1, 1, 1, 1, 1, 2], dtype=np.int16)
    cities = np.array([0, 0, 0, 0, 1, 1], dtype=np.int16)
    result = freshretailnet.planned(realised, sales, products, cities, default=9.0)
    assert result[:, 0].tolist() == [1, 1, 1, 1, 1, 9]
    sales[0] = 0
    result = freshretailnet.planned(realised, sales, products, cities, default=9.0)
    assert result[:, 0].tolist() == [1, 1, 1, 1, 1, 9], "three sellers in the city: the median over all cities"
    sales[1] = 0
    result = freshretailnet.planned(realised, sales, products, cities, default=9.0)
    assert result[:, 0].tolist() == [9, 9, 9, 9, 9, 9]


def test_series_that_lack_a_day_are_dropped() -> None:
    frame = daily_frame()
    short = frame[~((frame["store_id"] == 4) & (frame["dt"] == "2024-03-29"))]
    assert "store-4" not in freshretailnet.from_frame(short).store_ids


def test_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "frame.parquet"
    daily_frame().drop(columns=["discount"]).to_parquet(path)
    with pytest.raises(DataUnavailableError, match="no column discount"):
        freshretailnet.read_daily(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailableError, match="isn't a file"):
        freshretailnet.read_daily(tmp_path / "none.parquet")


class FakeHub:
    def __init__(self, root: Path) -> None:
        self.root = root

    def snapshot_download(self, repository: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        assert (repository, repo_type) == ("Dingdong-Inc/FreshRetailNet-50K", "dataset")
        assert allow_patterns == ["data/train*.parquet"]
        return str(self.root)


def test_original_is_downloaded_when_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    original_frame().to_parquet(tmp_path / "data" / "train-0.parquet")
    monkeypatch.delenv(freshretailnet.VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", FakeHub(tmp_path))
    assert len(freshretailnet.load()) == STORES


def test_without_file_and_hub_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(freshretailnet.VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataUnavailableError, match="pip install huggingface_hub"):
        freshretailnet.load()
