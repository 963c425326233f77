"""What may be held in memory: never more than a container or a job is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqa_cache.system.memory import available_memory

GB = 1024**3


def machine(root: Path, group: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {64 * GB // 1024} kB\n")
    (root / "proc/self/cgroup").write_text(group)
    return root


def limit(folder: Path, version: int, *, limit: str, used: int, files: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\n{names[2]} {files}\n")


def test_the_machine_is_the_limit_where_no_group_has_one(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path, "0::/\n1:cpu:/\n")) == 64 * GB
    limit(tmp_path / "sys/fs/cgroup", 2, limit="max", used=GB, files=0)
    assert available_memory(tmp_path) == 64 * GB
    assert available_memory() > 2**20


@pytest.mark.parametrize(
    ("version", "group", "root"),
    [(2, "0::/slurm/job/step\n", ""), (1, "0::/\n4:memory:/slurm/job/step\n", "memory")],
)
def test_the_narrowest_group_on_the_way_up_is_the_limit(
    tmp_path: Path, version: int, group: str, root: str
) -> None:
    groups = machine(tmp_path, group) / "sys/fs/cgroup" / root
    limit(groups, version, limit=str(2**62), used=9 * GB, files=0)
    limit(groups / "slurm/job", version, limit=str(8 * GB), used=3 * GB, files=GB)
    assert available_memory(tmp_path) == 6 * GB
    limit(groups / "slurm/job/step", version, limit=str(2 * GB), used=3 * GB, files=0)
    assert available_memory(tmp_path) == 0


def test_a_container_that_sees_only_its_own_group(tmp_path: Path) -> None:
    groups = machine(tmp_path, "4:memory:/docker/0123\n") / "sys/fs/cgroup/memory"
    limit(groups, 1, limit=str(4 * GB), used=GB, files=0)
    assert available_memory(tmp_path) == 3 * GB
