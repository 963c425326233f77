"""`python -m vqa_cache`: ls, info, verify and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import begin, commit, numbered_keys
from test_vqa_cache_examples import columns, write

import vqa_cache
from vqa_cache.__main__ import main
from vqa_cache.cache import create_cache
from vqa_cache.errors import NotACacheError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "cache"
    table = begin(root, model="resnet18", tap="layer2")
    commit(table, numbered_keys(3), np.zeros((3, 4)), failed={1: "truncated [1/2]"})
    begin(root, model="bert", tap="mean", modality="text")
    write(root / "examples" / "d" / "train", columns(["a?", "b?"]))
    return root


def test_ls(root: Path) -> None:
    result = run("ls", root)
    assert result.exit_code == 0
    assert "image/timm.resnet18/layer2-mean/float16@" in result.stdout
    assert "text/timm.bert/mean/float16@" in result.stdout
    assert "timm:resnet18:tap=layer2" in result.stdout
    assert "d/train: 2 examples" in result.stdout


def test_ls_json(root: Path) -> None:
    listed = json.loads(run("ls", root, "--json").stdout)
    assert listed["splits"] == {"d/train": 2}
    assert {row["name"].split("/")[0]: row["rows"] for row in listed["tables"]} == {
        "image": 2,
        "text": 0,
    }


def test_info(root: Path) -> None:
    result = run("info", "layer2", "--cache", root)
    assert result.exit_code == 0
    failed = numbered_keys(2)[1].hex()
    assert f"failed: 1\n    {failed}: truncated [1/2]" in result.stdout  # of no split
    assert "precision: fp32" in result.stdout
    assert "text/" not in result.stdout
    [described] = json.loads(run("info", "layer2", "--cache", root, "--json").stdout)
    assert described["failed"] == [{"key": failed, "item": None, "error": "truncated [1/2]"}]
    assert described["row_shape"] == [4]
    assert "rows" not in described["canaries"]
    assert described["identity"]["tap"] == "layer2"
    assert len(json.loads(run("info", "--cache", root, "--json").stdout)) == 2


def test_verify(root: Path) -> None:
    result = run("verify", root)
    assert (result.exit_code, result.stdout) == (0, f"{root}: every record and byte is right\n")
    assert "file size is right" in run("verify", root, "--quick").stdout
    [shard] = root.glob("tables/*/*/*/*/shards/*.h5")
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    result = run("verify", root)
    assert (result.exit_code, result.stdout.count("\n")) == (1, 1)
    assert str(shard) in result.stdout
    assert run("verify", root, "--quick").exit_code == 0
    result = run("verify", root, "--json")
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)["problems"]) == 1


@pytest.mark.parametrize("command", ["ls", "info", "verify", "gc"])
def test_no_cache_is_one_line(tmp_path: Path, command: str) -> None:
    result = run(command, "--cache", tmp_path / "none")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "no cache here" in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_cannot_be_written_is_one_line(root: Path) -> None:
    for command in (["export", "resnet18", "/dev/null/x", "--npy", "--cache", root],
                    ["copy", root, "/dev/null/x"]):  # fmt: skip
        result = run(*command)
        assert result.exit_code == 1
        assert result.stderr == "error: /dev/null/x: Not a directory\n"


def test_a_copy_inside_its_source_is_refused(root: Path) -> None:
    assert "is the source itself or inside it" in run("copy", root, root / "inner").stderr
    assert not (root / "inner").exists()


def test_an_unknown_table_lists_the_known(root: Path) -> None:
    result = run("info", "vit", "--cache", root)
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "error: no table named 'vit'; the cache has: image/timm.resnet18"
    )


@pytest.mark.parametrize("arguments", [["nothing"], ["ls", "--nothing"], ["info", "a", "b", "c"]])
def test_wrong_usage(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_every_command_takes_the_cache_alike(root: Path) -> None:
    """The table first, where a command is about one; the cache by --cache, or alone where it is
    what the command is about."""
    for command in ("ls", "verify", "gc"):
        assert run(command, root).stdout == run(command, "--cache", root).stdout != ""
        told = run(command, root, "--cache", root)
        assert (told.exit_code, "two caches named" in told.stderr) == (2, True)
    for command in main.commands:
        assert "-h, --help" in run(command, "-h").stdout


@pytest.mark.parametrize("name", ["a\0b", "a\ud800"])
def test_a_cache_that_is_no_path_is_one_line(name: str) -> None:
    for make in (vqa_cache.open, create_cache):
        with pytest.raises(NotACacheError, match=r"is no path that a folder can have$") as caught:
            make(name)
        str(caught.value).encode()
    assert run("ls", "a\udcff").exit_code == 1


def test_one_damaged_split_does_not_hide_the_rest(root: Path) -> None:
    write(root / "examples" / "d" / "test", columns(["a?"]))
    (root / "examples" / "d" / "test" / "000001.h5").unlink()
    result = run("ls", root)
    # either told as one line, or listed without it, but never a crash
    assert result.exit_code in (0, 1)
    assert isinstance(result.exception, SystemExit | None)
    if result.exit_code:
        assert "d/test" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("export", "layer2", "/dev/null/out", "--npy"), "error: /dev/null/out: Not a directory"),
        (("import", "npy", "rows.npy", "--encoder", "e"), "error: --key-by image needs --images"),
    ],
)
def test_what_the_system_or_an_option_refuses_is_one_line(
    root: Path, arguments: tuple[str, ...], told: str
) -> None:
    result = run(*arguments, "--cache", root)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(told)
    assert result.stderr.count("\n") == 1
