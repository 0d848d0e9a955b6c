"""The names that a weight file's pickle may mention: plain data, and what training leaves behind.

None of them is ever imported or called, so patterns are enough: a file of a newer PyTorch is read
too. The list covers what ``torch.load(weights_only=True)`` takes, and a few harmless classes more.
"""

import re

_PLAIN = "bool|bytearray|bytes|complex|dict|float|frozenset|int|list|long|set|str|tuple|unicode"
_PATTERNS = (
    rf"(builtins|__builtin__)\.({_PLAIN})",
    r"collections\.(OrderedDict|defaultdict|Counter)",
    r"numpy\.(dtype|ndarray|_?core\.multiarray\.(scalar|_reconstruct))",
    r"pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path",
    r"omegaconf\.(base|nodes|dictconfig|listconfig)\.[A-Z]\w*",
    r"argparse\.Namespace|_codecs\.encode|typing\.Any",
    # PyTorch: types and layouts, storages, tensors, and how they are put together again.
    r"torch\.(Size|device|bool|(b?float|u?int|q?u?int|complex|bits)\d\w*)",
    r"torch\.per_(tensor|channel)_\w+|torch\.serialization\._get_layout",
    r"torch\.((cuda|storage)\.)?[A-Z]\w*Storage",
    r"torch\.(cuda\.)?(sparse\.)?([A-Z]\w*)?Tensor",
    r"torch\.nn\.parameter\.(Parameter|Buffer)",
    r"torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2",
)
_HARMLESS = re.compile("|".join(_PATTERNS), re.ASCII)


def is_harmless(name: str) -> bool:
    """Whether a weight file may mention this dotted name."""
    return _HARMLESS.fullmatch(name) is not None
