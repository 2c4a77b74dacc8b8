"""Run a tool by the path that it had before release 0.1.0, and say where it is now.

The old paths are symbolic links to this file, so that commands in scripts go on.
"""

import runpy
import sys
from pathlib import Path

#: Name of the old file -> the new path, from here.
MOVED = {
    'draw_pointcloud.py': 'pointcloud/draw.py',
    'make_release.py': 'make_release.py',
    'pointbert.py': 'pointcloud/convert_checkpoint.py',
    'video_demo.py': 'video/demo.py',
    'video_lists.py': 'video/video_lists.py',
    'videomae_to_mmaction.py': 'video/convert_checkpoint.py',
    'vit_to_mmpretrain.py': 'image/convert_checkpoint.py',
}

if __name__ == '__main__':
    old = Path(sys.argv[0])
    new = MOVED[old.name]
    print(f'{old} is now tools/{new}. A later release will drop the old path.', file=sys.stderr)
    runpy.run_path(str(Path(__file__).resolve().parent / new), run_name='__main__')
