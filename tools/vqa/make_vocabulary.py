"""Write the answers that a model of visual question answering chooses from.

    python tools/vqa/make_vocabulary.py data/coco/vqav2/vocabulary.json \\
        data/coco/vqav2/v2_mscoco_train2014_annotations.json \\
        data/coco/vqav2/v2_mscoco_val2014_annotations.json
    python tools/vqa/make_vocabulary.py data/mine/vocabulary.json \\
        data/mine/train.csv --min-count 1 --raw

Annotations are VQAv2's (.json), or own questions (.csv, .tsv, .jsonl). Answers stand in
the order of their first occurrence in these files.
"""

from lm4ve.files import write_json
from lm4ve.runner.command_line import build_parser, run_tool
from lm4ve.tasks.vqa.datasets.answers import build_vocabulary
from lm4ve.tasks.vqa.datasets.vqa import read_answers


def main(argv: list[str] | None = None) -> None:
    add = (parser := build_parser(__doc__, {})).add_argument
    add('out', help='the JSON file to write')
    add('annotations', nargs='+', help="VQAv2's annotations, or own questions")
    add(
        '--min-count',
        type=int,
        default=9,
        help='questions with this majority answer; default: 9',
    )
    add(
        '--raw',
        action='store_true',
        help='no normalization as in the official evaluation',
    )
    args = parser.parse_args(argv)
    questions = [q for path in args.annotations for q in read_answers(path)]
    vocabulary = build_vocabulary(
        (m for m, _ in questions), args.min_count, not args.raw
    )
    write_json(vocabulary, args.out)
    covered = sum(not set(vocabulary).isdisjoint(given) for _, given in questions)
    share = f'{covered} of {len(questions)} questions ({covered / len(questions):.1%})'
    print(
        f'{args.out}: {len(vocabulary)} answers. {share} have one; training leaves out others.'
    )


if __name__ == '__main__':
    run_tool(main)
