"""``SQA3DDataset``: questions of somebody who stands in a scanned room.

SQA3D (Ma et al., ICLR 2023, arXiv 2210.07474; github.com/SilongYong/SQA3D), scenes of
ScanNet (arXiv 1702.04405) as ScanQA's preparation writes them.
"""

from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from lm4ve.errors import check
from lm4ve.registry import DATASETS
from lm4ve.tasks.rooms.datasets.questions import read_questions
from lm4ve.tasks.rooms.metrics import question_type
from lm4ve.tasks.rooms.models.heads import Corpus, count_answers
from lm4ve.tasks.rooms.transforms import SceneLoader
from lm4ve.text.dataset import TextDataset

#: Where the files of scenes lie, below ``data_root``.
FOLDERS = dict(scenes='scannet_data', scans='scans', objects='objects')


@DATASETS.register_module()
class SQA3DDataset(TextDataset):
    """SQA3D's questions with their rooms::

        <data_root>/qa/SQA_<split>.json
        <data_root>/scannet_data/<scene>_vert.npy, _aligned_vert.npy, _ins_label.npy,
            _sem_label.npy, _aligned_bbox.npy
        <data_root>/scans/<scene>/<scene>.txt
        <data_root>/objects/<scene>.npy             instead, for stored objects

    Policy for corrupt scenes: :mod:`lm4ve.data.integrity`.

    Args:
        split (str): 'train', 'val' or 'test'.
        data_root (str): The folder of ScanNet.
        ann_file (str): Below ``data_root``; ``{split}`` stands for the split. The one
            file that SQA3D's ScanQA code reads, or with ``question_file`` the official
            annotations, ``qa/v1_balanced_sqa_annotations_{split}_scannetv2.json``.
        question_file (str, optional): The official questions,
            ``qa/v1_balanced_questions_{split}_scannetv2.json``.
        data_prefix (dict, optional): Other folders than ``scenes='scannet_data'``,
            ``scans='scans'`` and ``objects='objects'``.
        answers (str | Sequence[str] | Mapping[str, int], optional): The vocabulary:
            the value of ``model.head.answers``. In training, questions without an
            answer in it are left out and counted; a test keeps them.
        on_corrupt, verify: See :class:`lm4ve.data.integrity.IntegrityMixin`.
        **kwargs: Passed to MMEngine's ``BaseDataset``. ``pipeline`` begins with
            ``lm4ve.LoadScene`` or ``lm4ve.LoadObjects`` and ends with
            ``lm4ve.PackScene``; ``test_mode`` is on by default unless the split is
            'train'.

    An entry has ``scene_id``, ``scene_path``, ``scan_file``, ``object_path``, ``text``
    (situation and question), ``question_id``, ``question_type``, ``gt_answers``
    (list[str]), ``position`` and ``rotation``.

    Questions with an empty text, and those about missing scenes, are left out and
    counted, or refused with ``on_corrupt='refuse'``.

    Raises:
        UserError: A file is missing, damaged or of another kind; question ids occur
            twice; nothing is left.
    """

    noun = 'scene'
    scan_decodes = True

    def __init__(
        self,
        split: str,
        data_root: str = 'data/scannet',
        ann_file: str = 'qa/SQA_{split}.json',
        question_file: str | None = None,
        data_prefix: dict | None = None,
        answers: Corpus | None = None,
        **kwargs: Any,
    ) -> None:
        for name in data_prefix or {}:
            check('dataset.data_prefix', name, choices=FOLDERS)
        prefix = {**FOLDERS, **(data_prefix or {})}
        self.split = split
        path = Path(data_root, (question_file or '').replace('{split}', split))
        self.question_file = question_file and str(path)
        self.answers = (
            None if answers is None else count_answers(answers, 'dataset.answers')
        )
        kwargs = dict(test_mode=split != 'train') | kwargs
        ann_file = ann_file.replace('{split}', split)
        super().__init__(
            ann_file=ann_file, data_root=data_root, data_prefix=prefix, **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """Return the questions of the files, checked."""
        found = read_questions(self.ann_file, self.question_file)
        data_list, empty = [], []
        for q in found:
            where = f'question {q["question_id"]}'
            self.check_texts(
                [*q['text'], *q['gt_answers']], f"'{self.ann_file}', {where}"
            )
            if all(map(str.strip, q['text'])):
                kind = question_type(q['text'][1])
                data_list.append(
                    dict(q, question_type=kind, **self.paths_of(q['scene_id']))
                )
            else:
                empty.append(where)
        self.leave_out('have an empty situation or question', empty, len(found))
        data_list = self._with_scenes(self._with_answers(data_list))
        self.refuse_nothing(data_list)
        return data_list

    def paths_of(self, scene_id: str) -> dict[str, str]:
        """Return where the files of a scene lie; ``scene_path`` lacks their endings."""
        scenes, scans, objects = (self.data_prefix[k] for k in FOLDERS)
        scan_file, object_path = (
            f'{scans}/{scene_id}/{scene_id}.txt',
            f'{objects}/{scene_id}.npy',
        )
        scene_path = f'{scenes}/{scene_id}'
        return dict(scene_path=scene_path, scan_file=scan_file, object_path=object_path)

    def _with_answers(self, data_list: list[dict]) -> list[dict]:
        """Leave out, in training, questions without an answer in the vocabulary."""
        if self.answers is None or self.test_mode:
            return data_list
        kept = [
            d for d in data_list if not self.answers.keys().isdisjoint(d['gt_answers'])
        ]
        left = f'{len(data_list) - len(kept)} of {len(data_list)} training questions are left out'
        print_log(f'{left}: they have no answer of the vocabulary.', logger='current')
        return kept

    def _with_scenes(self, data_list: list[dict]) -> list[dict]:
        """Leave out questions about scenes with missing files, before training starts."""
        if self.loader is None:
            return data_list
        scenes = {d['scene_id']: d for d in data_list}
        found = {i: self.loader.find_defect(d, decode=False) for i, d in scenes.items()}
        lost = [d for d in data_list if found[d['scene_id']]]
        names = [
            f'{d["question_id"]} ({d["scene_id"]} {found[d["scene_id"]]})' for d in lost
        ]
        self.leave_out('are about scenes that lack files', names, len(data_list))
        return [d for d in data_list if not found[d['scene_id']]]

    # ------------------------------------------------------------------- the scenes
    @property
    def loader(self) -> SceneLoader | None:
        """The first step of the pipeline, if it reads scenes."""
        steps = self.pipeline.transforms
        return steps[0] if steps and isinstance(steps[0], SceneLoader) else None

    def path_of(self, info: dict) -> str:
        """Return the path of an entry's scene, without an ending."""
        return info['scene_path']

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return a description of a defect in the files of a scene, or None."""
        return self.loader and self.loader.find_defect(
            self.paths_of(Path(path).name), decode
        )
