"""Write the answers that a model of visual question answering chooses from.

    python tools/vision_language/make_vocabulary.py data/coco/vqav2/vocabulary.json \\
        data/coco/vqav2/v2_mscoco_train2014_annotations.json \\
        data/coco/vqav2/v2_mscoco_val2014_annotations.json
    python tools/vision_language/make_vocabulary.py data/mine/vocabulary.json \\
        data/mine/train.csv --min-count 1 --raw
"""

import argparse
from collections.abc import Sequence

from lm4ve.files import write_json
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.vqa.answers import build_vocabulary
from lm4ve.tasks.vqa.datasets.vqa import read_answers


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('out', help='the JSON file to write')
    parser.add_argument(
        'annotations',
        nargs='+',
        help="VQAv2's annotations (.json), or own questions (.csv, .tsv, .jsonl);\n"
        'answers stand in the order of their first occurrence in these files',
    )
    parser.add_argument(
        '--min-count',
        type=int,
        default=9,
        help='questions that must have an answer as the majority gave it; default: 9',
    )
    parser.add_argument(
        '--raw',
        action='store_true',
        help='do not normalize answers as the official evaluation does',
    )
    args = parser.parse_args(argv)
    questions = [q for path in args.annotations for q in read_answers(path)]
    vocabulary = build_vocabulary((m for m, _ in questions), args.min_count, not args.raw)
    write_json(vocabulary, args.out)
    known = set(vocabulary)
    covered = sum(not known.isdisjoint(given) for _, given in questions)
    print(
        f'{args.out}: {len(vocabulary)} answers. {covered} of {len(questions)} questions '
        f'({covered / len(questions):.1%}) have one of them, as it was written by an annotator; '
        'a training leaves out the others.'
    )


if __name__ == '__main__':
    run_tool(main)
