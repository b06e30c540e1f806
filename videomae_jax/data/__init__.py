"""Video files in, uint8 clips out: NumPy, PyAV, OpenCV and Grain; no model and no JAX.

| file | subject |
|---|---|
| `video` | decode frames of one file (the only place that touches FFmpeg) |
| `sampling` | which frames make a clip, as index arithmetic |
| `transforms` | crop and resize the frames of a clip |
| `sources` | where videos and labels come from: manifest, folders, built-in clips |
| `builtin` | small clips made from scikit-image's photographs; no download |
| `pipeline` | shuffle, shard, load and batch, with Grain |
"""
