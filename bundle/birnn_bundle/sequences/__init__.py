"""Reading files of sequences: .smi, .txt, .csv and .tsv, plain or compressed. The one reader for every command.

It imports the standard library only, so that a client can use it; for .zst files pyarrow.
"""

from birnn_bundle.sequences.records import Layout, Record, read_records
from birnn_bundle.sequences.sequence_file import KINDS, TABLES, TITLE, Kind, Line, SequenceFile, kind_of, layout_of
from birnn_bundle.sequences.text_source import ARCHIVES, SequenceFileError, Stream, TextSource

__all__ = [
    "ARCHIVES",
    "KINDS",
    "TABLES",
    "TITLE",
    "Kind",
    "Layout",
    "Line",
    "Record",
    "SequenceFile",
    "SequenceFileError",
    "Stream",
    "TextSource",
    "kind_of",
    "layout_of",
    "read_records",
]
