"""`vqa-cache import`: rows of other programs, in the layouts that are found in public."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import write_images

import vqa_cache
from vqa_cache.__main__ import main
from vqa_cache.keys import unpack_keys
from vqa_cache.tools.verify import verify

DRAW = np.random.default_rng(0)
FIXED = DRAW.integers(-50, 50, (4, 3, 8)).astype(np.float32)  # images, regions, features
BOXES = DRAW.uniform(0, 4000, (4, 3, 4)).astype(np.float32)
NAMES = [f"COCO_val2014_{number:012d}.jpg" for number in (9, 25, 42, 7)]
IDS = ["9", "25", "42", "7"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four pictures named as COCO's are, one in a folder of its own."""
    folder = tmp_path / "images"
    for made, name in zip(write_images(folder, 4), NAMES, strict=True):
        (folder / made).rename(folder / name)
    (folder / "more").mkdir()
    (folder / NAMES[3]).rename(folder / "more" / NAMES[3])
    return folder


def run(tmp_path: Path, *arguments: object, **options: object) -> Result:
    typed = [str(argument) for argument in arguments]
    for name, value in ({"encoder": "butd", "cache": tmp_path / "cache"} | options).items():
        typed += [f"--{name.replace('_', '-')}", str(value)]
    return CliRunner().invoke(main, ["import", *typed])


def imported(tmp_path: Path, *arguments: object, **options: object) -> dict[str, Any]:
    """Tables by tap."""
    result = run(tmp_path, *arguments, **options)
    assert result.exit_code == 0, result.output
    cache = vqa_cache.open(tmp_path / "cache")
    assert list(verify(cache)) == []
    return {table.record.identity.tap: table for table in cache.tables.values()}


def image_keys(images: Path) -> list[bytes]:
    return [vqa_cache.image_key(next(images.rglob(name))) for name in NAMES]


def write_hdf5(path: Path, **arrays: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, data in arrays.items():
            file[name] = data
    return path


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("ids", [[9, 25, 42, 7], [name.encode() for name in NAMES]])
def test_bottom_up_with_ids(tmp_path: Path, images: Path, turned: bool, ids: list[Any]) -> None:
    features, boxes = (a.transpose(0, 2, 1) if turned else a for a in (FIXED, BOXES))
    path = write_hdf5(tmp_path / "x.h5", features=features, boxes=boxes, ids=ids)
    tables = imported(tmp_path, "hdf5", path, images=images)
    assert tables["features"].row_shape == (3, 8)
    assert tables["features"].dtype == "float16"
    assert tables["features"].rows(image_keys(images)).tolist() == FIXED.tolist()
    assert tables["boxes"].rows(image_keys(images)).tolist() == BOXES.tolist()
    identity = tables["features"].record.identity
    assert identity.library == "imported"
    assert identity.model == "butd"
    assert identity.preprocessing == {"provenance": "imported"}
    assert identity.weights.startswith("sha256:")


@pytest.mark.parametrize("form", ["list.json", "object.json", "lines.txt", "ids.parquet"])
def test_bottom_up_whose_ids_are_beside(tmp_path: Path, images: Path, form: str) -> None:
    path = write_hdf5(tmp_path / "x.hdf5", image_features=FIXED, image_bb=BOXES)
    listed, how = tmp_path / form, {}
    if form == "lines.txt":
        listed.write_text("".join(f"{name}\n" for name in IDS))
    elif form == "ids.parquet":
        pyarrow.parquet.write_table(pyarrow.table({"image_path": IDS, "n": [1, 2, 3, 4]}), listed)
        how = {"column": "image_path"}
    else:
        shuffled = {name: IDS.index(name) for name in sorted(IDS)}
        listed.write_text(json.dumps(IDS if form == "list.json" else shuffled))
    tables = imported(tmp_path, "hdf5", path, images=images, ids=listed, **how)
    assert tables["features"].rows(image_keys(images)).tolist() == FIXED.tolist()


def test_adaptive_regions_are_ragged(tmp_path: Path, images: Path) -> None:
    spans = np.array([[0, 3], [3, 5], [5, 11], [11, 12]], dtype=np.int32)
    path = write_hdf5(
        tmp_path / "x.hdf5",
        image_features=FIXED.reshape(12, 8), image_bb=BOXES.reshape(12, 4), pos_boxes=spans,
    )  # fmt: skip
    listed = tmp_path / "ids.json"
    listed.write_text(json.dumps(IDS))
    tables = imported(tmp_path, "hdf5", path, images=images, ids=listed, format="zarr")
    for tap, values in (("features", FIXED.reshape(12, 8)), ("boxes", BOXES.reshape(12, 4))):
        table = tables[tap]
        assert table.ragged
        assert table.record.container == "zarr"
        for key, (start, stop) in zip(image_keys(images), spans.tolist(), strict=True):
            assert table[key].tolist() == values[start:stop].tolist()


@pytest.mark.parametrize("names", [("features", "boxes"), ("x", "bbox")])
def test_npz_with_masks(tmp_path: Path, images: Path, names: tuple[str, str]) -> None:
    folder = tmp_path / "regions"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        arrays = {names[0]: FIXED[number], names[1]: BOXES[number]}
        if names[0] == "x":  # openvqa's are turned
            arrays["x"] = FIXED[number].T
        mask = np.arange(3) < 1 + number % 3
        np.savez(folder / f"{Path(name).stem}.npz", **arrays, mask=mask)
    tables = imported(tmp_path, "npz", folder, images=images)
    for number, key in enumerate(image_keys(images)):
        count = 1 + number % 3
        assert tables["features"][key].tolist() == FIXED[number, :count].tolist()
        assert tables["boxes"][key].tolist() == BOXES[number, :count].tolist()


def test_npz_without_boxes_or_mask_is_dense(tmp_path: Path, images: Path) -> None:
    folder = tmp_path / "regions"
    folder.mkdir()
    for number, name in enumerate(IDS):
        np.savez(folder / f"{name}.npz", features=FIXED[number])
    tables = imported(tmp_path, "npz", folder, images=images)
    assert list(tables) == ["features"]
    assert not tables["features"].ragged
    assert tables["features"].rows(image_keys(images)).tolist() == FIXED.tolist()


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_npy_of_texts(tmp_path: Path, dtype: str) -> None:
    texts = ["is it red?", "größer?", "no", "a\nb"]
    np.save(tmp_path / "x.npy", FIXED[:, 0].astype(np.float64))
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    ids = tmp_path / "texts.json"
    tables = imported(tmp_path, "npy", tmp_path / "x.npy", ids=ids, key_by="text", dtype=dtype)
    assert tables["features"].texts() == texts
    assert tables["features"].rows(texts).tolist() == FIXED[:, 0].tolist()
    found = vqa_cache.open(tmp_path / "cache").find_table("imported:butd", "text")
    assert found.name == tables["features"].name


def as_tensor() -> Any:
    return torch.from_numpy(FIXED[:, 0])


@pytest.mark.parametrize(
    ("saved", "needs_ids"),
    [
        (lambda: as_tensor(), True),
        (lambda: list(as_tensor()), True),
        (lambda: dict(zip(IDS, as_tensor(), strict=True)), False),
        (lambda: {int(n): row for n, row in zip(IDS, as_tensor(), strict=True)}, False),
        (lambda: {"embeddings": as_tensor(), "ids": IDS}, False),
        (lambda: {"features": as_tensor().bfloat16(), "ids": torch.tensor([9, 25, 42, 7])}, False),
    ],
)
def test_the_journals_pt_files(
    tmp_path: Path, images: Path, saved: Callable[[], Any], needs_ids: bool
) -> None:
    torch.save(saved(), tmp_path / "x.pt")
    (tmp_path / "ids.txt").write_text("\n".join(IDS))
    how = {"ids": tmp_path / "ids.txt"} if needs_ids else {}
    tables = imported(tmp_path, "pt", tmp_path / "x.pt", images=images, **how)
    assert tables["features"].rows(image_keys(images)).tolist() == FIXED[:, 0].tolist()


def test_the_content_and_the_stated_name_are_the_identity(tmp_path: Path) -> None:
    keys = [f"{number:032x}" for number in range(4)]
    (tmp_path / "keys.txt").write_text("\n".join(keys))

    def table_id(values: Any, **options: Any) -> str:
        np.save(tmp_path / "x.npy", values)
        ids = tmp_path / "keys.txt"
        result = run(
            tmp_path, "npy", tmp_path / "x.npy", "--json", key_by="key", ids=ids, **options
        )
        [told] = json.loads(result.stdout)["tables"]
        return str(vqa_cache.open(tmp_path / "cache").tables[told["table"]].id)

    first = table_id(FIXED)
    assert table_id(FIXED, encoder="other") != first
    assert table_id(FIXED + 1) != first
    assert table_id(FIXED) == first
    torch.save(dict(zip(keys, torch.from_numpy(FIXED), strict=True)), tmp_path / "x.pt")
    run(tmp_path, "pt", tmp_path / "x.pt", key_by="key")  # another file, the same content
    assert len(vqa_cache.open(tmp_path / "cache").tables) == 3


def test_an_interrupted_import_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqa_cache.tools import importing

    monkeypatch.setattr(importing, "ROWS_PER_SHARD", {"image": 2, "text": 2})
    np.save(tmp_path / "x.npy", FIXED)
    (tmp_path / "k.txt").write_text("\n".join(f"{n:032x}" for n in range(4)))
    write = importing._write_shard
    done: list[str] = []

    def dying(table: Any, items: Any, name: str) -> None:
        if len(done) == 1:
            done.append("stopped")
            raise KeyboardInterrupt
        done.append(name)
        write(table, items, name)

    monkeypatch.setattr(importing, "_write_shard", dying)
    how: dict[str, Any] = {"key_by": "key", "ids": tmp_path / "k.txt"}
    assert run(tmp_path, "npy", tmp_path / "x.npy", **how).exit_code != 0
    assert len(vqa_cache.open(tmp_path / "cache").tables["butd"]) == 2
    tables = imported(tmp_path, "npy", tmp_path / "x.npy", **how)
    assert len(done) == 3  # one more shard, not two
    assert len(tables["features"]) == 4


def test_several_files_and_doubles(tmp_path: Path, images: Path) -> None:
    for number in range(2):
        torch.save(
            dict(zip(IDS[number:], as_tensor()[number:] + number, strict=True)),
            tmp_path / f"{number}.pt",
        )
    tables = imported(tmp_path, "pt", tmp_path / "0.pt", tmp_path / "1.pt", images=images)
    assert tables["features"].rows(image_keys(images)).tolist() == FIXED[:, 0].tolist()


def test_missing_images_can_be_left_out(tmp_path: Path, images: Path) -> None:
    torch.save(dict(zip([*IDS[:3], "777"], as_tensor(), strict=True)), tmp_path / "x.pt")
    result = run(tmp_path, "pt", tmp_path / "x.pt", images=images)
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: {tmp_path / 'x.pt'}: id '777': no file of this name under {images}; to leave such "
        "rows out: --on-error skip\n",
    )
    assert not (tmp_path / "cache").exists()
    result = run(tmp_path, "pt", tmp_path / "x.pt", images=images, on_error="skip")
    assert "3 rows, 1 left out" in result.stdout


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


def broken(folder: Path, case: str) -> tuple[Any, ...]:
    """Arguments of an import that has to fail."""
    path = folder / "x"
    np.save(folder / "good.npy", FIXED)
    (folder / "three.txt").write_text("1\n2\n3\n")
    (folder / "four.txt").write_text("\n".join(f"{n:032x}" for n in range(4)))
    four = ("--ids", folder / "four.txt")
    if case.startswith("cut"):
        kind = case.split()[1]
        if kind == "hdf5":
            write_hdf5(path, features=FIXED, ids=[1, 2, 3, 4])
        elif kind == "pt":
            torch.save(as_tensor(), path)
        else:
            np.save(folder / "x.npy", FIXED)
            (folder / "x.npy").rename(path)
        path.write_bytes(path.read_bytes()[:100])
        return (kind, path, *four)
    if case == "absent":
        return ("npy", path, *four)
    if case == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
        return ("pt", path, *four)
    if case == "object npy":
        np.save(folder / "o.npy", np.array([Evil()], dtype=object), allow_pickle=True)
        return ("npy", folder / "o.npy", *four)
    if case == "no features":
        return ("hdf5", write_hdf5(path, other=FIXED), *four)
    if case.startswith("regions"):
        arrays = {"pos_boxes": [[0, 9], [9, 13]]} if case == "regions outside" else {}
        boxes = BOXES.reshape(12, 4)[: 12 if arrays else 11]
        features = FIXED.reshape(12, 8)
        return ("hdf5", write_hdf5(path, features=features, boxes=boxes, ids=[1], **arrays))
    if case == "npz boxes":
        (folder / "regions").mkdir()
        np.savez(folder / "regions" / "1.npz", features=FIXED[0], boxes=BOXES[0, :2])
        (folder / "id.txt").write_text("0" * 32)
        return ("npz", folder / "regions", "--ids", folder / "id.txt")
    if case == "no ids":
        return ("npy", folder / "good.npy")
    if case == "fewer ids":
        return ("npy", folder / "good.npy", "--ids", folder / "three.txt")
    if case == "two ids files":
        return ("npy", folder / "good.npy", *four, *four)
    if case == "uneven":
        torch.save([torch.zeros(2, 3), torch.zeros(2, 4)] * 2, path)
        return ("pt", path, *four)
    if case == "texts":
        np.save(folder / "t.npy", np.array(["a", "b", "c", "d"]))
        return ("npy", folder / "t.npy", *four)
    if case == "overflow":
        np.save(folder / "big.npy", FIXED * 1e6)
        return ("npy", folder / "big.npy", *four)
    if case == "not a number":
        np.save(folder / "nan.npy", FIXED * np.nan)
        return ("npy", folder / "nan.npy", *four)
    if case == "no width":
        np.save(folder / "none.npy", FIXED[:, :0])
        return ("npy", folder / "none.npy", *four)
    if case == "one id":
        torch.save({"embeddings": torch.ones(4, 3), "ids": 5}, path)
        return ("pt", path)
    if case == "bad key":
        np.save(folder / "three.npy", FIXED[:3])
        return ("npy", folder / "three.npy", "--ids", folder / "three.txt")
    if case == "no column":
        pyarrow.parquet.write_table(pyarrow.table({"a": ["1"]}), folder / "p.parquet")
        return ("npy", folder / "good.npy", "--ids", folder / "p.parquet", "--column", "b")
    assert case == "empty folder"
    (folder / "empty").mkdir()
    return ("npz", folder / "empty")


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("cut hdf5", "cannot be read as bottom-up HDF5"),
        ("cut pt", "cannot be read as tensors alone"),
        ("cut npy", "cannot be read as an npy array"),
        ("absent", "cannot be read as an npy array (No such file"),
        ("pickle", "cannot be read as tensors alone: it holds more, or is no whole file"),
        ("object npy", "cannot be read as an npy array"),
        ("no features", "none of image_features, features, x in it; it has: other"),
        ("regions outside", "pos_boxes point outside its 12 regions"),
        ("regions without boxes", "11 boxes for 12 features"),
        ("npz boxes", "1.npz: features [3, 8] for 2 boxes"),
        ("no ids", "does not say what its 4 rows are of; give --ids FILE"),
        ("fewer ids", "4 rows, but 3 ids"),
        ("two ids files", "2 --ids for 1 files"),
        ("uneven", "row 1 ('00000000000000000000000000000001'): float32[2, 4], expected numbers"),
        ("texts", "row 0 ('00000000000000000000000000000000'): <U1[], expected numbers"),
        ("overflow", " is too large for float16; store it as --dtype bf16 or fp32"),
        ("not a number", "has values that are not finite; mend them there"),
        ("no width", "holds no value"),
        ("one id", "cannot be read as tensors with their ids"),
        ("bad key", "id '1' is no key; expected 32 hex digits"),
        ("no column", "no column 'b'; it has: a"),
        ("empty folder", "no npz file here"),
    ],
)
def test_a_broken_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(tmp_path, *broken(tmp_path, case), key_by="key")
    assert result.exit_code == 1, result.output
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "evil").exists()
    assert not list(tmp_path.rglob("table.json"))  # nothing begun that will never have rows


def test_ids_in_a_column(tmp_path: Path, images: Path) -> None:
    path = write_hdf5(tmp_path / "x", features=FIXED, ids=[[int(name)] for name in IDS])
    table = imported(tmp_path, "hdf5", path, images=images)["features"]
    assert unpack_keys(table.keys) == image_keys(images)


def test_a_name_with_a_dot_is_not_cut_short(tmp_path: Path, images: Path) -> None:
    (images / NAMES[0]).rename(images / "street.jpg")
    (images / NAMES[1]).rename(images / "street.night.jpg")
    np.save(tmp_path / "x.npy", FIXED[:2])
    (tmp_path / "ids.txt").write_text("street.night\nstreet\n")
    ids = tmp_path / "ids.txt"
    table = imported(tmp_path, "npy", tmp_path / "x.npy", images=images, ids=ids)["features"]
    for number, name in enumerate(("street.night.jpg", "street.jpg")):
        row = table[vqa_cache.image_key(images / name)]
        np.testing.assert_array_equal(row.float().numpy(), FIXED[number])


def test_the_folder_and_the_name_are_checked(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", FIXED)
    (tmp_path / "k.txt").write_text("\n".join(f"{n:032x}" for n in range(4)))
    how: dict[str, Any] = {"ids": tmp_path / "k.txt"}
    assert "needs --images FOLDER" in run(tmp_path, "npy", tmp_path / "x.npy", **how).stderr
    named = run(tmp_path, "npy", tmp_path / "x.npy", key_by="key", encoder="a:b", **how)
    assert "--encoder 'a:b': expected letters" in named.stderr
