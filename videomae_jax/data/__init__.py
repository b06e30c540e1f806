"""Video files in, uint8 clips out: NumPy, PyAV, OpenCV and Grain; no model and no JAX.

| file | subject |
|---|---|
| `frames` | the interface of a video: its frames by number; the error of what cannot be read |
| `video`, `mpeg4` | of one file (the only place that touches FFmpeg); which frame is which in old AVI files |
| `images` | of a folder of pictures |
| `sources` | where videos and labels come from: all that `data.path` may be |
| `manifests`, `annotations`, `files` | lists that users write; the official files of the data sets; what both take |
| `tfds_videos`, `records` | TFDS data sets with videos, without TensorFlow |
| `check` | the command that decodes a source and says what is wrong |
| `prepare` | the command that turns videos into a TFDS data set in ArrayRecord, made for fast reading |
| `shards`, `workers` | one file of it; the processes that write them |
| `prepared` | what its records hold, and reading them |
| `builtin` | small clips made from scikit-image's photographs; no download |
| `sampling` | which frames make a clip, as index arithmetic |
| `transforms`, `randaugment` | crop and resize frames; change their colours and places at random |
| `clips` | from a video to the clips of pre-training, fine-tuning and tests |
| `pipeline` | shuffle, shard, load and batch, with Grain |
| `processor`, `inputs`, `pillow` | transformers' image processor |
"""
