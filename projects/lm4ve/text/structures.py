"""What is known and predicted of an image or room and its texts, from file to metric."""

from mmengine.structures import BaseDataElement
from torch import Tensor


class VisionLanguageDataSample(BaseDataElement):
    """One image with its texts.

    Metainfo, all optional: ``img_path`` (str), ``sample_idx`` (int), ``text``
    (list[str]: the question; or a true caption followed by false ones; or all captions
    of the image), ``question_id``, ``question_type`` and ``answer_type``,
    ``gt_answers`` (list[str]: ten for VQAv2, one for data sets with one answer a
    question, empty where the answer is not published), ``image_id`` and
    ``caption_ids``.

    A question in a scanned room (SQA3D) has ``text`` of two, the situation and the
    question, and ``scene_id``. To train it has data as well, in the frame of the
    scene's points, meters: ``gt_boxes`` (float ``[M, 6]`` or ``[M, 7]``: center, size,
    and for 7 the angle around z in radians), ``gt_labels`` (int64 ``[M]``),
    ``gt_votes`` (float ``[P, 3]``, from each of the P points to the center of its
    object's box), ``gt_vote_mask`` (bool ``[P]``, True on objects), and ``gt_pose``
    (float ``[7]``: where the asker stands, and a quaternion x, y, z, w of where they
    look).

    A prediction adds ``pred_scores`` (float ``[A]`` or ``[S]``), and for questions
    ``pred_label`` (int64 ``[1]``, an index of the vocabulary) and ``pred_answer``
    (str); in a room also ``pred_top_answers`` (list[str], the best ten), ``pred_pose``,
    ``pred_boxes`` (``[K, 7]``), ``pred_box_scores`` (``[K]``) and ``pred_box_labels``
    (int64 ``[K]``).
    """

    def set_answer(
        self, scores: Tensor, vocabulary: list[str]
    ) -> 'VisionLanguageDataSample':
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
