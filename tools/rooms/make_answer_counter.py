"""Write the answers that a model of SQA3D chooses from, one entry for each occurrence.

    python tools/rooms/make_answer_counter.py
        data/scannet/qa/answer_counter.json \\ data/scannet/qa/SQA_train.json

The model's answers are the different ones, sorted; how often one occurs says how much a
right answer counts. Name files of training only, or those that a checkpoint was made
with.
"""

from lm4ve.errors import check
from lm4ve.files import write_json
from lm4ve.runner.command_line import build_parser, run_tool
from lm4ve.tasks.rooms.datasets.questions import read_answers


def main(argv: list[str] | None = None) -> None:
    parser = build_parser(__doc__, {})
    parser.add_argument('out', help='the JSON file to write (answer_counter.json)')
    parser.add_argument(
        'annotations', nargs='+', help='SQA_train.json, or official annotations'
    )
    args = parser.parse_args(argv)
    answers = [answer for path in args.annotations for answer in read_answers(path)]
    check(f'the number of answers in {args.annotations}', len(answers), least=1)
    write_json(answers, args.out)
    print(f'{args.out}: {len(answers)} answers, {len(set(answers))} different ones')


if __name__ == '__main__':
    run_tool(main)
