"""VQA-CP v1 and v2: VQA's train and val dealt out anew, so that answer priors change in test.

Source: Agrawal et al. 2018, "Don't Just Assume; Look and Answer". That of
VQA's annotations: CC BY 4.0; images: COCO's terms.

    vqacp_{v1,v2}_{train,test}_questions.json
    vqacp_{v1,v2}_{train,test}_annotations.json

under the root, or in `questions/` and `annotations/` there. Each file is the bare list of entries
of the official files (`data.official_json`), with a `coco_split` that is not needed: an image id is
looked for in train2014, then in val2014. Where both versions lie together, v2 is read.

Questions of train and test: about 438,000 and 220,000 (v2), 245,000 and 125,000 (v1). There is no
val split: epochs are selected on a tenth of the images of train, never on test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.image_folders import CocoImages
from data.official_json import OfficialJson


class VqaCp(OfficialJson):
    """Adapter of VQA-CP, see the module's docstring for the files."""

    name = "vqa_cp"
    every_split = ("train", "test")

    def expected_files(self) -> list[str]:
        files = [
            f"vqacp_v2_{split}_{what}.json"
            for split in self.every_split
            for what in ("questions", "annotations")
        ]
        return [*files, *(f"{part}/COCO_{part}_*.jpg" for part in ("train2014", "val2014"))]

    def listed(self, content: Any, key: str) -> Any:
        return content

    def images(self, split: str) -> CocoImages:
        return CocoImages(self.root, "train2014", "val2014")

    def questions_file(self, split: str) -> Path | None:
        return self._find(split, "questions", ("v2", "v1"))

    def annotations_file(self, split: str) -> Path | None:
        questions = self.questions_file(split)
        version = "v1" if questions is not None and "_v1_" in questions.name else "v2"
        return self._find(split, "annotations", (version,))

    def _find(self, split: str, what: str, versions: tuple[str, ...]) -> Path | None:
        for version in versions:
            for folder in (self.root, self.root / what):
                path = folder / f"vqacp_{version}_{split}_{what}.json"
                if path.is_file():
                    return path
        return None
