"""Records out of a pickle of which nothing runs.

Whatever a pickle would import or call is replaced by an `Inert` that only remembers what it was
given: no name of the file is looked up, no code of the file or of a library is run by it. What
numpy and pandas wrote is then put together again from what was remembered; any other name is
refused. Known are lists of dictionaries, and data frames as pandas 1.3 to 2.3 writes them.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

OF_NUMPY = {"_reconstruct", "_frombuffer", "scalar", "ndarray", "dtype"}
KNOWN = {
    **{f"{m}.{n}": n for m in ("numpy", "numpy.core.multiarray") for n in OF_NUMPY},
    **{f"numpy.{m}.{n}": n for m in ("_core.multiarray", "_core.numeric") for n in OF_NUMPY},
    "numpy.core.numeric._frombuffer": "_frombuffer",
    "pandas.core.frame.DataFrame": "DataFrame",
    "pandas.core.internals.managers.BlockManager": "BlockManager",
    "pandas._libs.internals._unpickle_block": "block",
    "pandas.core.indexes.base._new_Index": "index",
    "pandas.core.indexes.base.Index": "Index",
    "pandas.core.indexes.numeric.Int64Index": "Index",
    "pandas.core.indexes.range.RangeIndex": "Index",
    "builtins.slice": "slice",
    "__builtin__.slice": "slice",
    "_codecs.encode": "encode",
}
"""What numpy and pandas write into pickles of plain columns, and what it is here."""


class Inert:
    """Something that a pickle would have made: its name, and what it would have been given."""

    what: ClassVar[str]
    given: tuple[Any, ...]
    state: Any

    def __new__(cls, *given: Any) -> Inert:
        self = object.__new__(cls)
        self.given, self.state = given, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


@cache
def _inert(what: str) -> type[Inert]:
    return type(what, (Inert,), {"what": what})


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[Inert]:
        what = KNOWN.get(f"{module}.{name}")
        if what is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no plain data")
        return _inert(what)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a pickled list of dictionaries, or the rows of a pickled data frame.

    Raises ValueError for a pickle of anything else, with the first name that is not known.
    """
    try:
        with path.open("rb") as file:
            found = _InertUnpickler(file).load()
        return list(_records(found))
    except (pickle.UnpicklingError, EOFError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path}: not read: {error}") from error
    except (KeyError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: not laid out as known: {error}") from error


def _records(found: Any) -> Iterator[dict[str, Any]]:
    if isinstance(found, list) and all(isinstance(each, dict) for each in found):
        for record in found:
            yield {name: plain(value) for name, value in record.items()}
        return
    if not (isinstance(found, Inert) and found.what == "DataFrame"):
        raise ValueError(f"a {_name(found)}, expected a list of dictionaries or a data frame")
    blocks, (columns, _) = _of(found.state["_mgr"], "BlockManager").given
    names = plain(_of(columns, "index").given[1]["data"])
    of_name: dict[str, list[Any]] = {}
    for block in blocks:
        values, place, _ = _of(block, "block").given
        for number, values_R in zip(_places(place), plain(values), strict=True):
            of_name[names[number]] = values_R
    for row in zip(*of_name.values(), strict=True):
        yield {name: plain(value) for name, value in zip(of_name, row, strict=True)}


def plain(value: Any) -> Any:
    """Numbers, text, bytes and lists, where numpy's were remembered."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, Inert):
        return value
    if value.what == "encode":
        return bytes(value.given[0], "latin1")
    if value.what == "scalar":
        dtype, data = value.given
        return np.frombuffer(data, _dtype(dtype))[0].item()
    order: Literal["C", "F"]
    if value.what == "_frombuffer":
        data, dtype, shape, order = value.given
        return _array(np.frombuffer(data, _dtype(dtype)), shape, order)
    _, shape, dtype, fortran, data = _of(value, "_reconstruct").state
    order = "F" if fortran else "C"
    if isinstance(data, list):  # of any objects
        objects = np.empty(len(data), dtype=object)
        objects[:] = [plain(each) for each in data]
        return _array(objects, shape, order)
    return _array(np.frombuffer(plain(data), _dtype(dtype)), shape, order)


def _array(flat: NDArray[Any], shape: tuple[int, ...], order: Literal["C", "F"]) -> list[Any]:
    if not flat.size and any(shape):  # it would be a list for each of any number of rows
        raise ValueError(f"an array of shape {shape} that holds nothing")
    values: list[Any] = flat.reshape(shape, order=order).tolist()
    return values


def _dtype(dtype: Inert) -> np.dtype[Any]:
    name, endian = _of(dtype, "dtype").given[0], dtype.state[1]
    found: np.dtype[Any] = np.dtype(name).newbyteorder(endian if endian in "<>" else "=")
    if found.kind not in "iufb":
        raise ValueError(f"numbers of the kind {name!r}")
    return found


def _places(place: Any) -> Sequence[int]:
    if isinstance(place, Inert) and place.what == "slice":
        return range(*place.given)
    numbers: list[int] = plain(place)
    return numbers


def _of(value: Any, what: str) -> Inert:
    if isinstance(value, Inert) and value.what == what:
        return value
    raise ValueError(f"a {_name(value)} where a {what} was expected")


def _name(value: Any) -> str:
    return value.what if isinstance(value, Inert) else type(value).__name__
