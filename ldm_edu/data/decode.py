"""From stored pictures to arrays: parquet rows or image files in, uint8 out.

Rows are read in small batches and decoded by a few threads straight into the final array, so
little more than the result is ever in memory.
"""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ldm_edu.errors import DataError

_BATCH = 512  # rows in memory at once
_THREADS = min(4, os.cpu_count() or 1)


class Row(NamedTuple):
    """One stored picture: where it is, its encoded bytes or its file, and its other columns."""

    where: str
    image: bytes | Path
    values: dict[str, Any]


def parquet_rows(
    files: tuple[Path, ...], image: str, columns: list[str]
) -> tuple[int, Iterator[Row]]:
    """The number of rows in parquet files, and the rows.

    `image` names the column of encoded pictures, as the hub stores them: a struct with `bytes`,
    or plain bytes. Raises DataError for an unreadable file or a missing column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    for file in files:
        try:
            with pq.ParquetFile(file) as table:
                count += table.metadata.num_rows
                require(
                    columns=[image, *columns], found=table.schema_arrow.names, where=str(file)
                )
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{file} is not a readable parquet file: {one_line(error)}"
            ) from error
    return count, _parquet_rows(files, image, columns)


def table_rows(batches: Iterable, where: str, image: str, columns: list[str]) -> Iterator[Row]:
    """The rows of arrow batches or tables; `where` names them in errors."""
    number = 0
    for batch in batches:
        values = {name: batch.column(name).to_pylist() for name in columns}
        for k, cell in enumerate(batch.column(image).to_pylist()):
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            yield Row(
                f"{where} row {number}", data, {name: values[name][k] for name in columns}
            )
            number += 1


def decode(
    rows: Iterable[Row], count: int, side: int, convert: Callable[[Any, str], np.ndarray]
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Decodes `count` rows: images uint8 (count, 3, side, side), and the other columns.

    `convert(picture, where)` turns a PIL image into uint8 (side, side, 3). Raises DataError
    with the place of the first picture that cannot be read.
    """
    images = np.empty((count, 3, side, side), np.uint8)
    values, rows = [], islice(rows, count)
    with ThreadPoolExecutor(_THREADS) as pool:
        while batch := list(islice(rows, _BATCH)):
            pictures = pool.map(lambda row: _picture(row, convert), batch)
            for row, pixels in zip(batch, pictures, strict=True):
                images[len(values)] = pixels.transpose(2, 0, 1)
                values.append(row.values)
    if len(values) != count:
        raise DataError(f"found {len(values)} rows, expected {count}: the file is cut short")
    return images, values


def require(columns: list[str], found: list[str], where: str) -> None:
    """Raises DataError if any of `columns` is not among those `found`."""
    missing = [name for name in columns if name not in found]
    if missing:
        raise DataError(
            f"{where} has no column {', '.join(map(repr, missing[:5]))}"
            f"{' ...' if len(missing) > 5 else ''}: found {', '.join(found) or 'no columns'}, "
            f"expected {', '.join(columns)}"
        )


def one_line(error: BaseException) -> str:
    """The message of an error, shortened to one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def _parquet_rows(files, image, columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in files:
        with pq.ParquetFile(file) as table:
            batches = table.iter_batches(_BATCH, columns=[image, *columns])
            try:
                yield from table_rows(batches, str(file), image, columns)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{file} is damaged: {one_line(error)}") from error


def _picture(row, convert):
    from PIL import Image

    try:
        if not isinstance(row.image, bytes | Path):
            raise OSError(f"the picture is {row.image!r}, expected encoded bytes")
        source = io.BytesIO(row.image) if isinstance(row.image, bytes) else row.image
        with Image.open(source) as picture:
            return convert(picture, row.where)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{row.where}: unreadable image: {one_line(error)}") from error
