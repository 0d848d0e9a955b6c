"""``python -m ttt3r.training``, see `ttt3r.training.commands`.

Nothing is defined here: processes of a team cannot find what lies in a package's ``__main__``.
"""

import sys

from ttt3r.training.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
