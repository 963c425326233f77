"""VQA v1 and v2 in the official JSON, over COCO images; our own `shapes` is written alike.

Source: visualqa.org (Antol et al. 2015; Goyal et al. 2017). Annotations: CC BY 4.0; images: COCO's
terms. Under the root, or in `questions/` and `annotations/` there, lie

    [v2_]OpenEnded_mscoco_<subtype>_questions.json     subtype: train2014, val2014, test2015,
    [v2_]mscoco_<subtype>_annotations.json             test-dev2015

where the names without `v2_` are v1; where both lie together, v2 is read. A split without an
annotations file is unlabelled. Questions and annotations are joined by question id.

Questions of train, val, test: 443,757, 214,354 and 447,793 (v2); 248,349, 121,512 and 244,302 (v1).

Images lie under the root or in `images/` there, in a folder named by the subtype as
COCO_<subtype>_<12 digits>.jpg, or <12 digits>.jpg as in COCO 2017 (whose train2017 and val2017 hold
the images of 2014 dealt out anew, so both are looked in); .png works for both.
"""

from __future__ import annotations

from pathlib import Path

from data.image_folders import CocoImages
from data.official_json import OfficialJson

# split -> (subtype in the JSON names, subtype in image names)
SUBTYPES: dict[str, tuple[str, str]] = {
    "train": ("train2014", "train2014"),
    "val": ("val2014", "val2014"),
    "test": ("test2015", "test2015"),
    "test-dev": ("test-dev2015", "test2015"),
}


class Vqa2(OfficialJson):
    """Adapter of VQA v1 and v2 JSON, see the module's docstring for the files."""

    name = "vqa2"
    every_split = tuple(SUBTYPES)
    prefixes: tuple[str, ...] = ("v2_", "")

    def expected_files(self) -> list[str]:
        files = []
        for split in (split for split in ("train", "val", "test") if split in self.every_split):
            subtype = SUBTYPES[split][0]
            files.append(f"{self.prefixes[0]}OpenEnded_mscoco_{subtype}_questions.json")
            if split != "test":
                files.append(f"{self.prefixes[0]}mscoco_{subtype}_annotations.json")
            files.append(f"{subtype}/COCO_{subtype}_*.jpg")
        return files

    def images(self, split: str) -> CocoImages:
        return CocoImages(self.root, SUBTYPES[split][1])

    def questions_file(self, split: str) -> Path | None:
        return self._find("OpenEnded_", split, "questions", self.prefixes)

    def annotations_file(self, split: str) -> Path | None:
        questions = self.questions_file(split)
        prefix = "v2_" if questions is not None and questions.name.startswith("v2_") else ""
        return self._find("", split, "annotations", (prefix,))

    def _find(self, task: str, split: str, what: str, prefixes: tuple[str, ...]) -> Path | None:
        for prefix in prefixes:
            for folder in (self.root, self.root / what):
                path = folder / f"{prefix}{task}mscoco_{SUBTYPES[split][0]}_{what}.json"
                if path.is_file():
                    return path
        return None


class Vqa1(Vqa2):
    """VQA v1 alone, whatever lies beside it."""

    name = "vqa1"
    prefixes = ("",)
