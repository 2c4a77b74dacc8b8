"""Small real videos, and every kind of broken one."""

import wave
from pathlib import Path

import av
import numpy as np

from lm4ve.tasks.video.datasets.video_files import write_video


def write_noise(
    path: Path, frames: int = 20, size: tuple = (40, 44), seed: int = 0
) -> Path:
    """Write a video of slowly changing noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    start, end = rng.integers(0, 255, (2, *size, 3))
    steps = np.linspace(0, 1, frames)[:, None, None, None]
    write_video(path, (start * (1 - steps) + end * steps).astype(np.uint8), fps=8)
    return path


def write_broken(folder: Path) -> dict:
    """Write one of each kind; return what is wrong -> path."""
    source = write_noise(folder / 'whole.mp4')
    whole = source.read_bytes()
    kinds = ('empty', 'truncated', 'truncated_late', 'audio', 'one_frame', 'text')
    broken = {kind: folder / f'{kind}.mp4' for kind in kinds}
    broken['empty'].write_bytes(b'')
    broken['truncated'].write_bytes(whole[: len(whole) // 2])
    broken['text'].write_text('<html>404 not found</html>')
    with wave.open(str(broken['audio']), 'wb') as sound:
        sound.setparams((1, 2, 8000, 0, 'NONE', None))
        sound.writeframes(bytes(1600))
    write_noise(broken['one_frame'], frames=1)
    write_cut(source, broken['truncated_late'])
    return broken


def write_cut(source: Path, path: Path) -> None:
    """Write two thirds of a video with its index in front, which still opens well."""
    video = av.open(str(source))
    out = av.open(str(path), 'w', options=dict(movflags='faststart'))
    with video, out:
        stream = out.add_stream_from_template(video.streams.video[0])
        for packet in video.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


def pipeline(decoder: str = 'Decord', **options) -> list[dict]:
    """Return steps from a file to four frames."""
    return [
        dict(type=f'{decoder}Init'),
        dict(type='UniformSample', clip_len=4, **options),
        dict(type=f'{decoder}Decode'),
        dict(type='FormatShape', input_format='NCTHW'),
        dict(type='PackActionInputs'),
    ]


def write_list(path: Path, videos: list) -> str:
    """Write mmaction2's list; labels are 0, 1, 2, ..."""
    path.write_text(''.join(f'{video} {i}\n' for i, video in enumerate(videos)))
    return str(path)
