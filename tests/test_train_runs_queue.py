"""The queue: jobs are taken once, handed back, taken over; workers train real runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from test_train_small_cache import write_experiment

from train.errors import TrainError
from train.runs.__main__ import command
from train.runs.queue import Queue, worker_name
from train.runs.registry import Registry
from train.runs.worker import Stop, Worker, last_line

ROOT = Path(__file__).parent.parent
LONG = "train.epochs=100000"


def queue_of(tmp_path: Path, lease_seconds: float = 60) -> Queue:
    return Queue(tmp_path / "runs", lease_seconds)


def add(queue: Queue, *names: str) -> list[int]:
    return [queue.add(name, ["seed=1"], cache=Path("c"), folder=Path("f")) for name in names]


def invoke(tmp_path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, "--runs", str(tmp_path / "runs")])


def enqueue(tmp_path: Path, cache: Path, *overrides: str) -> None:
    path = str(write_experiment(tmp_path))
    arguments = ("queue", path, "baselines=off", *overrides, "--cache", str(cache))
    done = invoke(tmp_path, *arguments)
    assert done.exit_code == 0, done.output


def jobs_of(tmp_path: Path) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = json.loads(invoke(tmp_path, "queue", "--json").stdout)["jobs"]
    return jobs


def work(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """A worker in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "train.runs", "work", "--runs", str(tmp_path / "runs"), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)
    return found


def training(tmp_path: Path) -> bool:
    """Whether the queued training has evaluated an epoch."""
    logs = (tmp_path / "runs" / "queue").glob("*.log")
    return any("epoch 1/" in log.read_text() for log in logs)


def children(worker: int) -> list[int]:
    """Processes that a worker started."""
    listed = Path(f"/proc/{worker}/task/{worker}/children").read_text()
    return [int(pid) for pid in listed.split()]


def alive(pid: int) -> bool:
    """Neither gone nor waiting to be buried."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


# ---------------------------------------------------------------- leases


def test_jobs_are_taken_in_their_order_and_once(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    numbers = add(queue, "a", "b")
    first, second = queue.take("x"), queue.take("y")
    assert first is not None
    assert second is not None
    assert [first.id, second.id] == numbers
    assert first.command == "train a seed=1"
    assert queue.take("z") is None
    assert queue.finish(first, "x", ok=True, run="a-1", last_line="run: a-1")
    assert queue.hand_back(second, "y")
    again = queue.take("z")
    assert again is not None
    assert (again.id, again.attempts) == (second.id, 2)
    assert [job["status"] for job in queue.jobs()] == ["done", "running"]


def test_a_lease_that_is_not_renewed_runs_out(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, lease_seconds=0.3)
    add(queue, "a")
    job = queue.take("x")
    assert job is not None
    for _ in range(4):
        time.sleep(0.1)
        assert queue.renew(job, "x")
        assert queue.take("y") is None
    time.sleep(0.4)
    assert [row["status"] for row in queue.jobs()] == ["abandoned"]
    taken = queue.take("y")
    assert taken is not None
    assert taken.id == job.id
    assert not queue.renew(job, "x"), "it is y's"
    assert not queue.finish(job, "x", ok=True, run=None, last_line="")
    assert not queue.hand_back(job, "x")
    assert queue.finish(taken, "y", ok=False, run=None, last_line="no")


def test_jobs_outlive_the_registry(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    add(queue, "a")
    with closing(Registry.open(tmp_path / "runs")) as registry:
        registry.rebuild()
        registry.path.unlink()
    assert [row["experiment"] for row in queue_of(tmp_path).jobs()] == ["a"]


def test_only_jobs_that_do_not_run_are_removed(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    running, waiting = add(queue, "a", "b")
    assert queue.take("x")
    queue.remove(waiting)
    for number in (running, waiting, 99):
        with pytest.raises(TrainError, match=f"job {number}: not in the queue, or running"):
            queue.remove(number)


def test_a_removed_job_leaves_its_number_to_its_log_alone(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    add(queue, "a", "b")
    (queue.folder / "2.log").write_text("what it printed")
    queue.remove(2)
    assert sorted(path.name for path in queue.folder.iterdir()) == [
        "1.json",
        "1.waiting.0",
        "2.log",
    ]
    assert add(queue, "c") == [3]


def test_a_damaged_job_is_named_with_what_to_do(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    add(queue, "a", "b")
    (queue.folder / "1.json").write_text("{}")
    assert [job["experiment"] for job in queue.jobs()] == [None, "b"]
    with pytest.raises(TrainError, match=r"1\.json: is damaged; take it out and queue it again: "):
        queue.take("x")
    queue.remove(1)
    taken = queue.take("x")
    assert taken is not None
    assert taken.experiment == "b"


def test_an_addition_that_was_killed_is_no_job(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    add(queue, "a", "b")
    (queue.folder / "2.waiting.0").unlink()  # it is made last
    assert [job["id"] for job in queue.jobs()] == [1]
    assert add(queue, "c") == [3]


def test_many_processes_take_every_job_once(tmp_path: Path) -> None:
    numbers = add(queue_of(tmp_path), *"abcdefghijklmnopqrst")
    program = (
        "import sys; from pathlib import Path\n"
        "from train.runs.queue import Queue, worker_name\n"
        "queue = Queue(Path(sys.argv[1])); name = worker_name()\n"
        "while (job := queue.take(name)) is not None:\n"
        "    print(job.id); queue.finish(job, name, ok=True, run=None, last_line='')\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "runs")]
    started = [
        subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    taken = [int(line) for process in started for line in process.communicate()[0].split()]
    assert sorted(taken) == numbers
    assert worker_name() != worker_name()


# ---------------------------------------------------------------- the command


def test_wrong_experiments_are_refused_before_the_night(tmp_path: Path, cache: Path) -> None:
    path = str(write_experiment(tmp_path))
    done = invoke(tmp_path, "queue", path, "train.epoch=3", "--cache", str(cache))
    assert "unknown key; did you mean epochs?" in done.stderr
    (tmp_path / "runs").mkdir(exist_ok=True)
    assert jobs_of(tmp_path) == []


def test_the_queue_is_listed_and_jobs_removed(tmp_path: Path, cache: Path) -> None:
    enqueue(tmp_path, cache, "seed=3")
    text = invoke(tmp_path, "queue").stdout
    assert text.splitlines()[0].split()[:3] == ["id", "status", "experiment"]
    assert "seed=3" in text
    assert invoke(tmp_path, "queue", "--remove", "1").exit_code == 0
    assert jobs_of(tmp_path) == []
    assert invoke(tmp_path, "queue", "cosine_answers", "--remove", "1").exit_code == 2


# ---------------------------------------------------------------- workers that train


def test_a_failing_job_is_recorded_and_the_batch_goes_on(tmp_path: Path, cache: Path) -> None:
    enqueue(tmp_path, cache, "features.dataset=absent")
    enqueue(tmp_path, cache, "train.epochs=1")
    out, err = (worker := work(tmp_path)).communicate()
    assert worker.returncode == 1
    failed, done = jobs_of(tmp_path)
    assert failed["status"] == "failed"
    assert failed["last_line"].startswith("exit code 1: error: ")
    assert "no split absent/train" in failed["last_line"]
    assert err.startswith("error: job 1: train ")
    assert len(err.splitlines()) == 1
    assert done["status"] == "done"
    assert (tmp_path / "runs" / done["run"] / "result.json").is_file()
    assert f"job 2: done, run: {tmp_path}/runs/{done['run']}" in out
    log = (tmp_path / "runs" / "queue" / "2.log").read_text()
    assert "epoch 1/1" in log


def test_a_job_that_cannot_start_is_recorded(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    add(queue, "a", "b")
    worker = Worker(queue, Stop(), lambda _: None)
    worker.work()
    assert [job["status"] for job in queue.jobs()] == ["failed", "failed"]
    assert queue.jobs()[0]["last_line"].startswith("cannot be started: [Errno 2] No such file")
    assert worker.failed[0].startswith("job 1: train a seed=1: cannot be started")


def test_a_waiting_worker_hands_its_job_back_at_sigterm(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "runs").mkdir()
    worker = work(tmp_path, "--wait")  # for what comes later
    time.sleep(0.5)
    assert worker.poll() is None
    enqueue(tmp_path, cache, LONG)
    until(lambda: training(tmp_path))
    [child] = children(worker.pid)
    worker.send_signal(signal.SIGTERM)
    out, err = worker.communicate(timeout=30)
    assert (worker.returncode, err) == (143, "")
    assert "job 1: stopped, back in the queue" in out
    assert not alive(child)
    [job] = jobs_of(tmp_path)
    assert (job["status"], job["worker"], job["attempts"]) == ("waiting", None, 1)


def test_a_dead_worker_takes_its_training_along_and_another_gets_the_job(
    tmp_path: Path, cache: Path
) -> None:
    enqueue(tmp_path, cache, LONG)
    worker = work(tmp_path)
    until(lambda: training(tmp_path))
    [child] = children(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    until(lambda: not alive(child), 10)
    [job] = jobs_of(tmp_path)
    assert job["status"] == "running", "its lease has not run out yet"
    queue = queue_of(tmp_path)
    assert queue.take("another") is None
    [state] = queue.folder.glob("1.running.*")
    state.rename(queue.folder / f"1.running.1.1000.{job['worker']}")
    [job] = jobs_of(tmp_path)
    assert job["status"] == "abandoned"
    assert queue.take("another") is not None


def test_a_worker_that_lost_its_lease_lets_go(tmp_path: Path, cache: Path) -> None:
    enqueue(tmp_path, cache, LONG)
    queue = queue_of(tmp_path, lease_seconds=0.9)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 1:  # as if this machine had slept
            [state] = queue.folder.glob("1.running.*")
            state.rename(queue.folder / "1.running.2.9999999999999.another")

    Worker(queue, Stop(), say).work()
    assert said[1:] == ["job 1: another worker has it, this one let go"]
    [job] = jobs_of(tmp_path)
    assert (job["status"], job["worker"]) == ("running", "another")


def test_the_last_line_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "1.log"
    log.write_bytes(b"")
    assert last_line(log) == "it printed nothing"
    log.write_text("x" * 20_000 + "\nthe end \n\n")
    assert last_line(log) == "the end"
