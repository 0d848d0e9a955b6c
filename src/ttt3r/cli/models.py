"""``ttt3r models``: the weights that are known by name."""

from dataclasses import dataclass

from ttt3r.cli.command import Command, Debug, print_table


@dataclass(frozen=True)
class ModelsCommand(Command):
    """List the weights that are known by name, their licences, and which are on this machine."""

    debug: Debug = False

    def main(self) -> int:
        """Print the catalogue."""
        from ttt3r.weights import CATALOGUE, weights_folder
        from ttt3r.weights.catalogue import find_on_disk

        rows = [("NAME", "FAMILY", "LICENCE", "ON DISK", "ORIGIN")]
        for spec in CATALOGUE.values():
            if spec.random_config is not None:
                where = "not needed (random)"
            else:
                path = find_on_disk(spec)
                found = "in this package" if spec.packaged else str(path)
                where = "no" if path is None else found
            rows.append((spec.name, spec.family, spec.licence, where, spec.origin_url))
        print_table(rows)
        print("\nA family's name stands for the first of its released weights.")
        print(f"Weights are looked for in {weights_folder()} (set TTT3R_WEIGHTS to change it).")
        print("For those that are not there, `ttt3r run VIDEO --model NAME` says how to get them.")
        return 0
