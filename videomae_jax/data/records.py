"""Records of TFDS data sets in ArrayRecord files, by number, without TensorFlow.

`tfds.builder_from_directory(folder).as_data_source(split)` does the same, but here TensorFlow is needed neither by the
feature `Video` nor to leave features undecoded, and at most `MAX_OPEN_FILES` of a data set's files are open at a time.
"""

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

MAX_OPEN_FILES = 256  # Kinetics has thousands of shards, a process may often open 1024 files
INFO_FILE = "dataset_info.json"

Record = Mapping[str, tf_feature_pb2.Feature]


class RecordFiles:
    """Records of some files, counted through. Threads may share it; files are opened when they are read.

    Args:
      files: ArrayRecord files.
      lengths: the number of records in each.
    """

    def __init__(self, files: Sequence[str], lengths: Sequence[int]):
        self._files = files
        self._ends = np.cumsum(lengths)
        self._readers = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: int) -> Record:
        """The features of a record, undecoded.

        Raises:
          OSError: its file is not there or damaged.
        """
        file = int(np.searchsorted(self._ends, number, side="right"))
        in_file = number - (int(self._ends[file - 1]) if file else 0)
        try:
            record = self._reader(file).read([in_file])[0]
            return tf_example_pb2.Example.FromString(record).features.feature
        except Exception as error:  # the libraries raise RuntimeError, IndexError, DecodeError
            with self._lock:  # what is open may have gone, and come back
                self._readers.pop(file, None)
            reason = str(error).partition(";")[0].splitlines()[0] if str(error) else type(error).__name__
            raise OSError(f"record {in_file} of {self._files[file]} cannot be read: {reason}") from error

    def _reader(self, file: int) -> ArrayRecordReader:
        with self._lock:
            if file not in self._readers:
                if len(self._readers) >= MAX_OPEN_FILES:
                    # It closes when the last thread that reads from it lets go.
                    self._readers.popitem(last=False)
                # Reading ahead would read the records of other videos.
                self._readers[file] = ArrayRecordReader(self._files[file], options="readahead_buffer_size:0")
            self._readers.move_to_end(file)
            return self._readers[file]


class TfdsFolder:
    """What the metadata of a TFDS data set says.

    Args:
      folder: where its `dataset_info.json` is.

    Attributes:
      folder: the same.
      splits: their names.
      features: the descriptions of the features in `features.json`, by name.

    Raises:
      ValueError: the metadata cannot be understood, or the records are not in ArrayRecord files.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = os.fspath(folder)
        if not os.path.isfile(os.path.join(self.folder, INFO_FILE)):
            raise ValueError(
                f"data set {self.folder} is not finished; give the same `python -m videomae_jax.data.prepare` again"
            )
        try:
            info = tfds.core.dataset_info.read_proto_from_builder_dir(self.folder)
            described = json.loads(Path(self.folder, "features.json").read_text())
            self.features = described["featuresDict"]["features"]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"data set {self.folder}: its {INFO_FILE} or features.json cannot be understood "
                f"({type(error).__name__}: {error}); prepare it again with tensorflow-datasets 4.9 or newer"
            ) from error
        if "array_record" not in (info.file_format, *info.alternative_file_formats):
            raise ValueError(
                f"data set {self.folder} is in {info.file_format or 'tfrecord'} files, which allow no random access; "
                "convert it, where TensorFlow is installed, with python -m tensorflow_datasets.scripts.convert_format "
                f"--dataset_dir={self.folder} --out_file_format=array_record, "
                "or prepare it with tfds build --file_format=array_record"
            )
        template = tfds.core.ShardedFileTemplate(
            data_dir=self.folder, dataset_name=info.name, filetype_suffix="array_record"
        )
        self._splits = tfds.core.SplitDict.from_proto(repeated_split_infos=info.splits, filename_template=template)
        self.splits = tuple(self._splits)

    def choose(self, spec: str | None, counts: Mapping[str, int] | None = None) -> tuple[str, int, int]:
        """A split's name and the range of numbers that a specification means.

        Args:
          spec: a split or a slice of one, such as `train`, `train[:90%]`, `train[100:]`; None for the only one.
          counts: how many there are to slice, by split; None for the records.

        Raises:
          ValueError: there is no such split, or several and None is named.
        """
        if spec is None:
            if len(self.splits) != 1:
                raise ValueError(
                    f"data set {self.folder} has the splits {', '.join(self.splits)}; say which: "
                    f"{self.folder}:{self.splits[0]}"
                )
            spec = self.splits[0]
        counts = counts or {name: split.num_examples for name, split in self._splits.items()}
        try:
            chosen = tfds.core.ReadInstruction.from_spec(spec).to_absolute(
                {name: tfds.core.SplitInfo(name=name, shard_lengths=[n], num_bytes=0) for name, n in counts.items()}
            )
            (part,) = chosen
        except (ValueError, KeyError, AssertionError) as error:
            raise ValueError(
                f"data set {self.folder} has no split or slice {spec!r}; it has {', '.join(self.splits)}, "
                f"and slices such as {self.splits[0]}[:90%]"
            ) from error
        count = counts[part.splitname]
        start, stop = part.from_ or 0, count if part.to is None else part.to
        if count and stop <= start:
            raise ValueError(f"data set {self.folder}: {spec!r} is none of the {count} that {part.splitname} has")
        return part.splitname, start, stop

    def records(self, split: str) -> RecordFiles:
        """The records of a whole split.

        Raises:
          ValueError: files are missing.
        """
        info = self._splits[split]
        count, template = info.num_shards, info.filename_template
        names = [template.relative_filepath(shard_index=shard, num_shards=count) for shard in range(count)]
        there = set(os.listdir(self.folder))
        missing = [name for name in names if name not in there]
        if missing:
            raise ValueError(
                f"data set {self.folder}: {len(missing)} of {count} files of its split {split} are missing, "
                f"the first is {missing[0]}; copy or prepare it again"
            )
        return RecordFiles([os.path.join(self.folder, name) for name in names], info.shard_lengths)

    def metadata(self) -> dict:
        """What `metadata.json` says; empty where there is none.

        Raises:
          ValueError: it is not JSON.
        """
        file = Path(self.folder, "metadata.json")
        try:
            return json.loads(file.read_bytes()) if file.exists() else {}
        except ValueError as error:
            raise ValueError(f"data set {self.folder}: metadata.json cannot be read ({error})") from error

    def class_names(self, feature: str) -> tuple[str, ...]:
        """The names of the classes of a `ClassLabel`; numbers where it has none."""
        file = Path(self.folder, f"{feature}.labels.txt")
        if file.exists():
            return tuple(file.read_text(encoding="utf-8").splitlines())
        return tuple(map(str, range(int(self.features[feature]["classLabel"]["numClasses"]))))
