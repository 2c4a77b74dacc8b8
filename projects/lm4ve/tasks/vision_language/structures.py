"""What is known and predicted of one image and its texts, in one object from file to metric."""

from mmengine.structures import BaseDataElement
from torch import Tensor


class VisionLanguageDataSample(BaseDataElement):
    """One image with its texts.

    Metainfo, all optional: ``img_path`` (str), ``sample_idx`` (int), ``text``
    (list[str]: the question; or a true caption followed by false ones; or all captions
    of the image), ``question_id``, ``question_type`` and ``answer_type``, ``gt_answers``
    (list[str]: ten for VQAv2, one for data sets with one answer a question, empty where
    the answer is not published), ``image_id`` and ``caption_ids``.

    A prediction adds ``pred_scores`` (float ``[A]`` or ``[S]``), and for questions
    ``pred_label`` (int64 ``[1]``, an index of the vocabulary) and ``pred_answer`` (str).
    """

    def set_answer(self, scores: Tensor, vocabulary: list[str]) -> 'VisionLanguageDataSample':
        """Set the predicted answer.

        Args:
            scores (Tensor): ``[A]``, one score an answer of the vocabulary.
            vocabulary (list[str]): The A answers.

        Returns:
            VisionLanguageDataSample: Itself.
        """
        self.pred_scores = scores
        self.pred_label = scores.argmax(-1, keepdim=True)
        self.pred_answer = vocabulary[int(self.pred_label)]
        return self
