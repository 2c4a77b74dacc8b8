"""Points and surfaces, for the tasks on clouds, rooms and traffic.

``point_ops`` has operators on batches in torch, ``rotations`` turns points in space, and
``plane`` points and lines in the plane. The rest is on top of open3d, which
``open3d_library`` alone imports: ``mesh_files`` reads files that may be damaged,
``surfaces`` makes shapes and draws points on them.
"""
