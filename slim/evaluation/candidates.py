"""The best checkpoint of a folder of evaluations, which is kept when training deletes it."""

import math
import shutil
from contextlib import suppress
from pathlib import Path

from slim.checkpoints.description import MODEL
from slim.checkpoints.finding import BEST, STATE, checkpoint_files, latest_checkpoint
from slim.common.errors import UserError
from slim.common.files import exclusive, replacing, write_whole
from slim.evaluation.predictions import RESULTS, Predictions, read_results


class Candidate:
    """A checkpoint to evaluate, whose files are open: training may delete them meanwhile."""

    def __init__(self, checkpoint: str, *, averages: bool) -> None:
        self._checkpoint, self._averages, self._files = Path(checkpoint), averages, {}
        for path in checkpoint_files(self._checkpoint):
            with suppress(FileNotFoundError):  # the network cannot be read then, either
                self._files[path.name.removeprefix(self._checkpoint.name)] = path.open("rb")

    def keep_if_best(self, folder: Path, predictions: Predictions) -> None:
        """Copies the checkpoint to `best` in a folder, unless the one there is as accurate."""
        # A killed process leaves the previous checkpoint or this one, whole: the file `checkpoint`,
        # replaced at once, names one of both. Figures and deletions follow, here or in a next call.
        best, model = folder / BEST, _read(self._checkpoint.with_name(MODEL))
        name = f"model.ckpt-{predictions.step}"
        basis = {"num_images": len(predictions.labels), "moving_averages": self._averages}
        best.mkdir(exist_ok=True)
        with exclusive(best, math.inf):
            kept = latest_checkpoint(best) if (best / STATE).exists() else None
            if kept:
                with suppress(FileNotFoundError):
                    Path(f"{kept}.json").replace(best / RESULTS)
                before = read_results(best)
                if _read(best / MODEL) != model or {k: before.get(k) for k in basis} != basis:
                    raise UserError(
                        f"--keep_best: {best} is of another model, on other images, or only one of "
                        "both has moving averages: move it, or pass another --eval_dir"
                    )
                if predictions.accuracy <= before["accuracy"]:
                    return
                name += "_again" * (name == Path(kept).name)
            for suffix, file in self._files.items():
                with replacing(best / f"{name}{suffix}") as path, path.open("wb") as copy:
                    shutil.copyfileobj(file, copy)
            if model:
                write_whole(best / MODEL, model)
            figures = best / f"{name}.json"
            write_whole(figures, predictions.figures(str(best / name), **basis))
            write_whole(best / STATE, f'model_checkpoint_path: "{name}"\n')
            figures.replace(best / RESULTS)
            for path in best.glob("model.ckpt-*"):
                if not f"{path.name}.".startswith(f"{name}."):
                    path.unlink()
        print(f"the best so far: {best / name}", flush=True)


def _read(path: Path) -> str:
    return path.read_text("utf-8", "surrogateescape") if path.exists() else ""
