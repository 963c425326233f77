"""OK-VQA: questions that need outside knowledge, over COCO 2014 images.

Source: okvqa.allenai.org (Marino et al. 2019). Licence: see there; images: COCO's terms. The
files are named and built as those of VQA v1 (`data.vqa2`):

    OpenEnded_mscoco_{train2014,val2014}_questions.json
    mscoco_{train2014,val2014}_annotations.json

9,009 questions of train and 5,046 of val. Five people answered, each counted twice, so the official
accuracy of a question is 0, 0.6 or 1. `answer` is their stemmed answer, which is what the official
figures compare; `raw_answer` beside it is not read. `question_type` is "one" to "ten" or "other":
the kinds of knowledge that the annotations file names.
"""

from __future__ import annotations

from data.vqa2 import Vqa2


class OkVqa(Vqa2):
    """Adapter of OK-VQA, see the module's docstring for the files."""

    name = "ok_vqa"
    every_split = ("train", "val")
    prefixes = ("",)
