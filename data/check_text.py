"""A check of a dataset for people: lines for a terminal, and one page with pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from io import BytesIO
from typing import Any

from data.check import COVERAGES, SHOWN, Checked, Content, Overlap, figures
from data.example import Example

_TYPES = 8  # question types told
_SIDE = 160  # pixels of a picture's longer side on the page
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
h2{margin-top:2.5rem}
table{border-collapse:collapse}td,th{padding:.1rem .8rem .1rem 0;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}.bar{background:#4a7ebb;height:.8rem}
.wrong{color:#b00020}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(10rem,1fr));gap:1rem}
figure{margin:0}figure img{max-width:100%}figcaption{font-size:.85rem}
"""


def lines(checked: Checked) -> Iterator[str]:
    """What a terminal shows: first what splits share, then split by split."""
    for overlap in checked.overlaps:
        yield _shared(overlap)
    train = checked.splits.get("train")
    for split, content in checked.splits.items():
        yield _summary(split, content)
        for what in content.wrong[:SHOWN]:
            yield f"  {what}"
        if len(content.wrong) > SHOWN:
            yield f"  … and {len(content.wrong) - SHOWN:,} more"
        for remark in content.remarks:
            yield f"  note: {remark}"
        if content.answers:
            yield from (f"  {line}" for line in _told(figures(content, train)))


def _shared(overlap: Overlap) -> str:
    told = []
    if overlap.images:
        percent = _percent(overlap.images / overlap.of_images)
        told.append(
            f"{overlap.images:,} images ({percent} of {overlap.second}'s {overlap.of_images:,})"
        )
    if overlap.rows:
        percent = _percent(overlap.rows / overlap.of_rows)
        told.append(f"{overlap.rows:,} distinct rows of image, question and answer ({percent})")
    if overlap.alike:
        told.append(f"{overlap.alike:,} further images that look alike")
    return f"{overlap.first} and {overlap.second} share {', '.join(told)}"


def _summary(split: str, content: Content) -> str:
    kind = f"{len(content.answers):,} distinct answers" if content.annotated else "unlabelled"
    return (
        f"{split}: {content.examples:,} questions ({len(content.questions):,} distinct), {kind}, "
        f"{len(content.images):,} images ({content.opened:,} opened), "
        f"{len(content.wrong):,} problems"
    )


def _told(found: dict[str, Any]) -> Iterator[str]:
    common = ", ".join(f"{answer!r} {count:,}" for answer, count in found["answers"].items())
    yield f"answers: {common}"
    top = found["top_share"]
    shares = f"top 1, 2, 10: {', '.join(_percent(top[k]) for k in ('1', '2', '10'))}"
    yield f"{shares} of the answers; Gini {found['gini']:.3f}"
    if found["question_lookup"] is not None:
        yield (
            f"looking the question up in train answers {_percent(found['question_lookup'])}; "
            f"{_percent(found['unseen_answers'])} of the answers are never in train"
        )
    covered = ", ".join(_percent(found["coverage"][str(k)]) for k in COVERAGES)
    sizes = ", ".join(f"{k:,}" for k in COVERAGES)
    if found["coverage"][str(COVERAGES[0])] is not None:
        yield f"covered by train's {sizes} most frequent answers: {covered}"
    types = found["question_types"]
    if list(types) != ["none given"]:
        for kind, one in list(types.items())[:_TYPES]:
            yield f"{kind}: {one['n']:,}, most often {one['answer']!r} ({_percent(one['share'])})"
        if len(types) > _TYPES:
            yield f"… and {len(types) - _TYPES} more question types"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


# ---------------------------------------------------------------- page


def page(checked: Checked) -> str:
    """One HTML page that needs nothing beside it."""
    train = checked.splits.get("train")
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{escape(checked.name)}</title>",
        f"<style>{_STYLE}</style><h1>{escape(checked.name)}</h1><p>{escape(str(checked.root))}</p>",
        *(f"<p class=wrong>{escape(_shared(overlap))}</p>" for overlap in checked.overlaps),
    ]
    for split, content in checked.splits.items():
        parts.append(f"<h2>{escape(split)}</h2><p>{escape(_summary(split, content))}</p>")
        parts += (f"<p class=wrong>{escape(what)}</p>" for what in content.wrong[:SHOWN])
        parts += (f"<p>{escape(remark)}</p>" for remark in content.remarks)
        if content.answers:
            found = figures(content, train)
            parts += [
                _histogram(found),
                *(f"<p>{escape(line)}</p>" for line in list(_told(found))[1:]),
            ]
        parts.append(_pictures(checked, content))
    return "\n".join(parts) + "\n"


def _histogram(found: dict[str, Any]) -> str:
    widest = max(found["answers"].values())
    rows = (
        f"<tr><td>{escape(answer) or '(empty)'}<td class=n>{count:,}"
        f"<td style='width:20rem'><div class=bar style='width:{100 * count / widest:.0f}%'></div>"
        for answer, count in found["answers"].items()
    )
    return f"<table>{''.join(rows)}</table>"


def _pictures(checked: Checked, content: Content) -> str:
    figures_ = (_figure(checked, example) for example in content.samples)
    return f"<div class=grid>{''.join(figures_)}</div>"


def _figure(checked: Checked, example: Example) -> str:
    answer = "" if example.answer is None else f"<br><b>{escape(example.answer)}</b>"
    images = "".join(_picture(str(checked.root / image)) for image in example.images)
    return f"<figure>{images}<figcaption>{escape(example.question)}{answer}</figcaption></figure>"


def _picture(path: str) -> str:
    from data.images import ImageError, open_image

    try:
        picture = open_image(path, at_least=_SIDE)
    except (ImageError, OSError):
        return "<p class=wrong>not readable</p>"
    picture.thumbnail((_SIDE, _SIDE))
    content = BytesIO()
    picture.save(content, "JPEG", quality=80)
    return f"<img src='data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}'>"
