"""The line that says where the time of stage 1 went."""

from __future__ import annotations

import time

import pytest

from precompute.bottleneck import Activity, Bottleneck


@pytest.mark.parametrize(
    ("activity", "waiting", "relief"),
    [
        ("preprocessing", "for items to be read and preprocessed", "more --workers"),
        ("encoding", "for the encoder", "a faster device"),
        ("writing", "for the disk", "a faster disk under the cache"),
    ],
)
def test_the_largest_share_is_named(activity: Activity, waiting: str, relief: str) -> None:
    bottleneck = Bottleneck()
    bottleneck.seconds.update(preprocessing=1.0, encoding=1.0, writing=1.0)
    bottleneck.seconds[activity] = 6.0
    assert bottleneck.told(400, "cpu").startswith(
        f"50 items/s on cpu; 75 % of the time went by waiting {waiting}; what would help: {relief}"
    )


def test_time_is_counted_also_when_the_work_fails() -> None:
    def fail_slowly() -> None:
        time.sleep(0.02)
        raise KeyError

    bottleneck = Bottleneck()
    with pytest.raises(KeyError), bottleneck.on("encoding"):
        fail_slowly()
    assert 0.02 <= bottleneck.seconds["encoding"] < 1
    assert bottleneck.seconds["writing"] == 0
