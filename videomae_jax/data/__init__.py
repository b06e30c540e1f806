"""Video files in, uint8 clips out: NumPy, PyAV, OpenCV and Grain; no model and no JAX.

| file | subject |
|---|---|
| `video` | decode frames of one file (the only place that touches FFmpeg) |
| `sampling` | which frames make a clip, as index arithmetic |
| `transforms` | crop and resize the frames of a clip |
| `sources` | where videos and labels come from: manifest, folders, built-in clips |
| `prepare` | the command that turns videos into a TFDS data set in ArrayRecord, made for fast reading |
| `shards`, `workers` | one file of it; the processes that write them |
| `prepared` | what its records hold, and reading them |
| `tfds_videos`, `records` | any TFDS data set with videos, without TensorFlow |
| `builtin` | small clips made from scikit-image's photographs; no download |
| `pipeline` | shuffle, shard, load and batch, with Grain |
"""
