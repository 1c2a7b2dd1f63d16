"""HDF5 files opened without trust: no links out, no foreign filters, no sizes that cannot be."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.errors import DataError

__all__ = ["Tree", "open_tree"]

# deflate, shuffle, fletcher32, szip, nbit, scaleoffset, lzf
_FILTERS = {1, 2, 3, 4, 5, 6, 32000}
_MAX_OBJECTS = 2_000_000
_MAX_RATIO = 1100  # deflate's limit is 1032 : 1


class Tree:
    """The datasets and attributes of one HDF5 file by path; opened again after pickling."""

    def __init__(self, path: Path):
        self.path = path
        self._file, self.datasets, self.groups = _walk(path)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows [start, stop) of a dataset."""
        dataset = self.datasets[name]
        try:
            return dataset[start:stop]
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(f"{self.path}: {name} cannot be read.", found=str(error)[:160], do="restore it") from error

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a dataset."""
        return self.datasets[name].shape

    def attributes(self, group: str) -> dict[str, Any]:
        """Return the attributes of a group that are numbers or text."""
        if group not in self.groups:
            return {}
        try:
            stored = dict(self.groups[group].attrs)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            where = f"{self.path}: the attributes of {group}"
            raise DataError(f"{where} cannot be read.", found=str(error)[:160], do="restore the file") from error
        result = {}
        for name, value in stored.items():
            plain = value.decode(errors="replace") if isinstance(value, bytes) else value
            if isinstance(plain, str | int | float | np.number | np.bool_):
                result[name] = plain
        return result

    def children(self, group: str) -> list[str]:
        """Return the names right below `group`."""
        prefix = f"{group}/" if group else ""
        names = {
            name[len(prefix) :].split("/")[0] for name in (*self.datasets, *self.groups) if name.startswith(prefix)
        }
        return sorted(names - {""}, key=natural)

    def __reduce__(self) -> tuple:
        return Tree, (self.path,)


def open_tree(path: Path) -> Tree:
    """Open `path` read-only and check every object in it."""
    return Tree(path)


def natural(name: str) -> tuple:
    """Return a sort key by which demo_2 comes before demo_10."""
    head = name.rstrip("0123456789")
    digits = name[len(head) :]
    return head, int(digits) if digits else -1, name


def _walk(path: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    import h5py
    from h5py import h5o  # ty: ignore[import-not-found]

    try:
        file = h5py.File(path, "r")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.", do="check the dataset's path") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{path} is not a readable HDF5 file.",
            found=str(error)[:200],
            do="it was cut or never closed: try `h5clear -s`, or record it again",
        ) from error
    datasets: dict[str, Any] = {}
    groups: dict[str, Any] = {"": file}
    stack = [("", file)]
    try:
        seen = {h5o.get_info(file.id).addr}
        while stack:
            prefix, group = stack.pop()
            for name in group:
                full = f"{prefix}/{name}" if prefix else name
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise DataError(
                        f"{path}: {full} is a link.", expected="data in this file", do="copy it into the file"
                    )
                item = group[name]
                address = h5o.get_info(item.id).addr
                if address in seen or len(seen) > _MAX_OBJECTS:
                    raise DataError(f"{path}: {full} is in the file twice, or it has too many objects.")
                seen.add(address)
                if isinstance(item, h5py.Group):
                    groups[full] = item
                    stack.append((full, item))
                elif isinstance(item, h5py.Dataset):
                    _check(path, full, item)
                    datasets[full] = item
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} is damaged.", found=str(error)[:200], do="restore the file") from error
    return file, datasets, groups


def _check(path: Path, name: str, dataset: Any) -> None:
    where = f"{path}: {name}"
    if dataset.is_virtual or dataset.external:
        raise DataError(f"{where} keeps its data in another file.", do="copy the data into this file")
    plist = dataset.id.get_create_plist()
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if not filters <= _FILTERS:
        raise DataError(f"{where} uses a filter that is not allowed.", found=sorted(filters - _FILTERS))
    if dataset.dtype.kind not in "fiubSOV" or dataset.shape is None:
        raise DataError(f"{where} has a type that is not allowed.", found=dataset.dtype)
    declared, stored = math.prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if declared > max(stored, 1) * _MAX_RATIO + 2**20:
        raise DataError(f"{where} declares more than the file can hold.", found=f"{declared} bytes in {stored}")


def require(datasets: Mapping[str, Any], name: str, path: Path) -> None:
    """Raise unless `name` is a dataset of numbers."""
    if name not in datasets:
        raise DataError(f"{path} lacks {name}.", found=", ".join(list(datasets)[:8]))
    if datasets[name].dtype.kind not in "fiub":
        raise DataError(f"{path}: {name} holds no numbers.", found=datasets[name].dtype)
