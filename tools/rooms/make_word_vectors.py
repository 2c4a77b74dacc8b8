"""Keep of GloVe the vectors of the words that SQA3D's texts have, in a file without a pickle.

    python tools/rooms/make_word_vectors.py glove.6B.300d.txt \\
        data/glove/glove.6B.300d.npz data/scannet/qa/SQA_{train,val,test}.json

Texts are the lists that SQA3D's ScanQA code reads, or the official files of questions.
"""

from lm4ve.runner.command_line import build_parser, run_tool
from lm4ve.tasks.rooms.datasets.questions import read_texts
from lm4ve.tasks.rooms.models.language import write_word_vectors


def main(argv: list[str] | None = None) -> None:
    parser = build_parser(__doc__, {})
    parser.add_argument(
        'source', help="GloVe's text file, a word and its numbers a line"
    )
    parser.add_argument('out', help='the .npz to write')
    parser.add_argument(
        'questions', nargs='+', help='files of questions, of every split'
    )
    args = parser.parse_args(argv)
    texts = [text for path in args.questions for text in read_texts(path)]
    words, known = write_word_vectors(args.source, texts, args.out)
    found = f'{known} of the {words} words of {len(texts)} texts have a vector'
    print(f'{args.out}: {found}; the others are read as unknown.')


if __name__ == '__main__':
    run_tool(main)
