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

    Questions with an empty text, and those about missing scenes, count as damage, too:
    training leaves them out.

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
        folders = dict(FOLDERS)
        for name, folder in (data_prefix or {}).items():
            check('dataset.data_prefix', name, choices=FOLDERS)
            folders[name] = folder
        self.split = split
        self.question_file = None
        if question_file:
            path = Path(data_root, question_file.replace('{split}', split))
            self.question_file = str(path)
        self.answers = None
        if answers is not None:
            self.answers = count_answers(answers, 'dataset.answers')
        kwargs.setdefault('test_mode', split != 'train')
        super().__init__(
            ann_file=ann_file.replace('{split}', split),
            data_root=data_root,
            data_prefix=folders,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Return the questions of the files, checked."""
        entries = read_questions(self.ann_file, self.question_file)
        data_list = []
        empty = []
        for entry in entries:
            name = f'question {entry["question_id"]}'
            texts = [*entry['text'], *entry['gt_answers']]
            self.check_texts(texts, f"'{self.ann_file}', {name}")
            situation, question = entry['text']
            if not situation.strip() or not question.strip():
                empty.append(name)
                continue
            entry['question_type'] = question_type(question)
            entry |= self.paths_of(entry['scene_id'])
            data_list.append(entry)
        self.leave_out('have an empty situation or question', empty, len(entries))
        data_list = self._with_answers(data_list)
        data_list = self._with_scenes(data_list)
        self.refuse_nothing(data_list)
        return data_list

    def paths_of(self, scene_id: str) -> dict[str, str]:
        """Return where the files of a scene lie; ``scene_path`` lacks their endings."""
        folders = self.data_prefix
        return dict(
            scene_path=f'{folders["scenes"]}/{scene_id}',
            scan_file=f'{folders["scans"]}/{scene_id}/{scene_id}.txt',
            object_path=f'{folders["objects"]}/{scene_id}.npy',
        )

    def _with_answers(self, data_list: list[dict]) -> list[dict]:
        """Leave out, in training, questions without an answer in the vocabulary."""
        if self.answers is None or self.test_mode:
            return data_list
        known = self.answers.keys()
        kept = []
        for entry in data_list:
            if not known.isdisjoint(entry['gt_answers']):
                kept.append(entry)
        left_out = len(data_list) - len(kept)
        print_log(
            f'{left_out} of {len(data_list)} training questions are left out: they have no answer '
            'of the vocabulary.',
            logger='current',
        )
        return kept

    def _with_scenes(self, data_list: list[dict]) -> list[dict]:
        """Leave out questions about scenes with missing files, before training starts."""
        if self.loader is None:
            return data_list
        defects: dict[str, str | None] = {}
        kept = []
        lost = []
        for entry in data_list:
            scene = entry['scene_id']
            if scene not in defects:
                defects[scene] = self.find_defect_if_given(self.path_of(entry))
            defect = defects[scene]
            if defect is None:
                kept.append(entry)
            else:
                lost.append(f'{entry["question_id"]} ({scene} {defect})')
        self.leave_out('are about scenes that lack files', lost, len(data_list))
        return kept

    # ------------------------------------------------------------------- the scenes
    @property
    def loader(self) -> SceneLoader | None:
        """The first step of the pipeline, if it reads scenes."""
        steps = self.pipeline.transforms
        if steps and isinstance(steps[0], SceneLoader):
            return steps[0]
        return None

    def path_of(self, info: dict) -> str:
        """Return the path of an entry's scene, without an ending."""
        return info['scene_path']

    def files_of_libraries(self, path: str) -> list[str]:
        """Return the files of a scene."""
        if self.loader is None:
            return []
        return self.loader.files(self.paths_of(Path(path).name))

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return a description of a defect in the files of a scene, or None."""
        if self.loader is None:
            return None
        return self.loader.find_defect(self.paths_of(Path(path).name), decode)
