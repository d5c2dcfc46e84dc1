"""FreshRetailNet-50K: 50,000 store x product series of perishables, 2024-03-28 to 2024-06-11.

By Dingdong-Inc (Hugging Face: `Dingdong-Inc/FreshRetailNet-50K`), licence CC BY 4.0. Two sources, one result: a daily
parquet file named by the environment variable FRESHRETAILNET_PARQUET, or the original downloaded by `huggingface_hub`.

Two traps of these data are dealt with here. Giveaways (free on most days, large and steady) flatter every model: dropped.
Discount and promotion are recorded per store as realised, and fall back to "none" on days without a sale, so as known
future they would give the answer away: replaced by a planned value that comes from the other stores of the product.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from demo.bakery import DataUnavailableError
from demo.series import FloatArray, SeriesSet, weekdays

if TYPE_CHECKING:
    import pandas as pd

VARIABLE: Final = "FRESHRETAILNET_PARQUET"
REPOSITORY: Final = "Dingdong-Inc/FreshRetailNet-50K"

_GIVEAWAY_PRICE: Final = 0.01
_GIVEAWAY_SHARE: Final = 0.2
_MIN_STORES: Final = 4
_OPENING_HOURS: Final = 16  # 6 to 22 o'clock
_ORIGINAL_COLUMNS: Final = {
    "sale_amount": "sale",
    "stock_hour6_22_cnt": "oos_hours",  # hours between 6 and 22 o'clock without stock, despite its name
}
_COLUMNS: Final = ["city_id", "store_id", "product_id", "dt"]
_VALUES: Final = ["sale", "oos_hours", "discount", "holiday_flag", "activity_flag", "avg_temperature"]


def load() -> SeriesSet:
    """The whole data set, cleaned. Raises `DataUnavailableError` if neither source is at hand."""
    named = os.environ.get(VARIABLE)
    return from_frame(read_daily(Path(named)) if named else _downloaded())


def read_daily(path: Path) -> pd.DataFrame:
    """The daily file, or the original's parquet: both layouts are accepted. One row per series and day."""
    pandas = importlib.import_module("pandas")
    if not path.is_file():
        raise DataUnavailableError(f"{VARIABLE} names {path}, which isn't a file")
    frame = daily_from_original(pandas.read_parquet(path))
    missing = [name for name in _COLUMNS + _VALUES if name not in frame.columns]
    if missing:
        raise DataUnavailableError(f"{path.name}: no column {', '.join(missing)}; got {', '.join(frame.columns)}")
    return frame[_COLUMNS + _VALUES]


def daily_from_original(frame: pd.DataFrame) -> pd.DataFrame:
    """The original's columns under the daily file's names. A frame that has them already is returned as it is."""
    names = {old: new for old, new in _ORIGINAL_COLUMNS.items() if old in frame.columns and new not in frame.columns}
    return frame.rename(columns=names)


def from_frame(frame: pd.DataFrame) -> SeriesSet:
    """Cleaned series of a daily frame. Series that lack a day are dropped."""
    frame = frame.sort_values(["store_id", "product_id", "dt"], kind="stable")
    dates = np.unique(frame["dt"].to_numpy().astype("datetime64[D]")).astype(np.int64).astype(np.int32)
    sizes = frame.groupby(["store_id", "product_id"], sort=False)["sale"].transform("size").to_numpy()
    frame = frame[sizes == len(dates)]
    first = frame.iloc[:: len(dates)]
    grids = {name: frame[name].to_numpy(dtype=np.float32).reshape(-1, len(dates)) for name in _VALUES}
    products, cities = first["product_id"].to_numpy(), first["city_id"].to_numpy()
    keep = np.flatnonzero(~np.isin(products, giveaways(products, grids["discount"])))
    sales, products, cities = grids["sale"][keep], products[keep], cities[keep]
    # The flag is set on every weekend too; the weekday is known from the date, so only the other days carry news.
    holiday = grids["holiday_flag"][keep] * (weekdays(dates) < 5)
    return SeriesSet(
        name="freshretailnet",
        sku_ids=tuple(f"product-{product}" for product in products),
        store_ids=tuple(f"store-{store}" for store in first["store_id"].to_numpy()[keep]),
        dates=dates,
        sales=sales,
        promo=planned(grids["activity_flag"][keep], sales, products, cities, default=0.0),
        discount=planned(grids["discount"][keep], sales, products, cities, default=1.0),
        holiday=holiday.astype(np.float32),
        temperature=grids["avg_temperature"][keep],
        in_stock=(1.0 - grids["oos_hours"][keep] / _OPENING_HOURS).astype(np.float32),
    )


def giveaways(products: np.ndarray[tuple[int, ...], np.dtype[np.int16]], discount: FloatArray) -> list[int]:
    """Products that are free on more than a fifth of their days. discount: float32[series, days]."""
    free = (discount < _GIVEAWAY_PRICE).mean(axis=1)
    return [int(p) for p in np.unique(products) if free[products == p].mean() > _GIVEAWAY_SHARE]


def planned(
    realised: FloatArray,
    sales: FloatArray,
    products: np.ndarray[tuple[int, ...], np.dtype[np.int16]],
    cities: np.ndarray[tuple[int, ...], np.dtype[np.int16]],
    *,
    default: float,
) -> FloatArray:
    """The planned value behind a realised one: the median over the product's stores of the city that sold that day.

    With fewer than four such stores the median over all cities, and `default` if those are too few as well.
    All grids float32[series, days]; products and cities are integers per series.
    """
    sold = np.where(sales > 0, realised, np.nan)
    result = np.empty_like(realised)
    for rows in _groups(products):
        result[rows] = np.nan_to_num(_median_of_enough(sold[rows]), nan=default)
        for local in _groups(cities[rows]):
            median = _median_of_enough(sold[rows[local]])
            result[rows[local]] = np.where(np.isnan(median), result[rows[local]], median)
    return result


def _groups(labels: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> list[np.ndarray[tuple[int], np.dtype[np.intp]]]:
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _median_of_enough(values: FloatArray) -> FloatArray:
    """Median of each column without NaN: float32[days], NaN where fewer than four values are known."""
    counts = np.sum(~np.isnan(values), axis=0)
    ordered = np.sort(values, axis=0)  # NaN last
    middle = np.maximum(counts - 1, 0)
    columns = np.arange(values.shape[1])
    median = (ordered[middle // 2, columns] + ordered[(middle + 1) // 2, columns]) / 2
    return np.where(counts >= _MIN_STORES, median, np.nan).astype(np.float32)


def _downloaded() -> pd.DataFrame:
    pandas = importlib.import_module("pandas")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise DataUnavailableError(
            f"FreshRetailNet-50K isn't here: set {VARIABLE} to a parquet file of it, "
            "or `pip install huggingface_hub` so that the demo can download the original"
        ) from error
    try:
        root = Path(hub.snapshot_download(REPOSITORY, repo_type="dataset", allow_patterns=["data/train*.parquet"]))
    except (OSError, ValueError) as error:  # the hub's own errors derive from these two
        raise DataUnavailableError(f"couldn't download {REPOSITORY} from Hugging Face: {error}") from error
    parts = sorted(root.glob("data/train*.parquet"))
    if not parts:
        raise DataUnavailableError(f"{REPOSITORY} has no data/train*.parquet any more; set {VARIABLE} instead")
    wanted = [*_COLUMNS, *_ORIGINAL_COLUMNS, *(name for name in _VALUES if name not in _ORIGINAL_COLUMNS.values())]
    return daily_from_original(pandas.concat([pandas.read_parquet(part, columns=wanted) for part in parts]))
