"""Made-up stationary points, starts and campaigns: what the catalogue stores, without computing any of it."""

import dataclasses
from pathlib import Path

import numpy as np

from enumerator.catalogue.catalogue import Catalogue
from enumerator.points import StationaryPoint
from enumerator.problem import Campaign, InitialLaw, Landscape
from enumerator.starts import Outcome, ShardResult, Starts
from enumerator.stop_levels import STOPS


def make_campaign(students=3, teachers=2, seed=0, **fields) -> Campaign:
    return Campaign(Landscape(students, teachers, **fields), law=InitialLaw(dimension=10), seed=seed)


def make_point(landscape: Landscape, loss: float, verdict: str = "minimum", **fields) -> StationaryPoint:
    """A point whose overlaps depend on the first ten digits of its loss alone."""
    generator = np.random.default_rng(round(abs(loss) * 1e10))
    K, r = landscape.students, landscape.teacher_rank
    W = generator.standard_normal((K, r))
    values = {
        "landscape": landscape,
        "W": W,
        "Q": W @ W.T,
        "R": W @ landscape.teacher_factor.T,
        "loss": loss,
        "gradient_norm": 1e-15,
        "verdict": verdict,
        "verdict_above": verdict,
        "anti_aligned": 1,
        "effective_students": K,
        "hessian_min": 0.1,
        "hessian_max": 2.0,
        "hessian_spectrum": np.sort(generator.random(K * r)),
        "perpendicular_min": 0.25,
        "perpendicular_spectrum": np.sort(generator.random(K)),
        "flat_dimension": 0,
        "second_layer_weights": None,
        "splitting_min": -0.5,
        "splitting_min_perpendicular": None,
        "radius": 0.01,
        "isotropy": "S2 x S1",
        "orbit_size_log10": 1.5,
    }
    return StationaryPoint(**{**values, **fields})


def make_result(campaign, first, last, points=(), ended=None, index=None) -> ShardResult:
    """Starts [first, last): the k-th ends in point `ended[k]` (-1 unfinished, -2 diverged), by default in turn."""
    index = np.arange(first, last) if index is None else np.asarray(index)
    n, K, M = len(index), campaign.landscape.students, campaign.landscape.teachers
    if ended is None:
        ended = np.arange(n) % len(points) if points else np.full(n, -1)
    ended = np.asarray(ended)
    outcome = [_outcome(points, where) for where in ended]
    generator = np.random.default_rng(first)
    lost = ended == -2
    return ShardResult(
        campaign=campaign,
        starts=Starts(
            index=index,
            outcome=np.array(outcome, np.int8),
            point=np.where(ended < 0, -1, ended).astype(np.int32),
            loss=np.where(lost, np.nan, generator.random(n)),
            gradient_norm=np.where(lost, np.inf, generator.random(n)),
            anti_aligned=np.where(lost, -1, 1).astype(np.int32),
            flow_time=generator.random(n),
            evaluations=np.arange(n, dtype=np.int64),
            distance=np.where(ended < 0, np.nan, generator.random(n)),
            Q=generator.random((n, K, K)),
            R=generator.random((n, K, M)),
            stop_flow_time=np.full((n, STOPS), np.nan),
            stop_loss=np.full((n, STOPS), np.nan),
            stop_anti_aligned=np.full((n, STOPS), -1, np.int32),
            distance_error=np.full(n, np.nan),
            second_layer=np.zeros((n, 0)),
        ),
        points=list(points),
    )


def _outcome(points, where) -> Outcome:
    if where == -2:
        return Outcome.DIVERGED
    if where == -1:
        return Outcome.UNFINISHED
    return Outcome.SADDLE if points[where].verdict == "saddle" else Outcome.CONVERGED


def same_loss(new, known) -> list[int]:
    """A matcher for made-up points: the same if the losses agree to 1e-11."""
    return [next((k for k, b in enumerate(known) if abs(a.loss - b.loss) < 1e-11), -1) for a in new]


def new_catalogue(path: Path, **options) -> Catalogue:
    """An empty catalogue that tells made-up points apart by their losses."""
    return Catalogue(path, create=True, matcher=same_loss, **options)


def commit(atlas: Catalogue, campaign: Campaign, first: int, last: int, losses=(0.5,), **options):
    """Commit starts that end in made-up minima of these losses, in turn."""
    points = [make_point(campaign.landscape, loss) for loss in losses]
    return atlas.commit_shard(make_result(campaign, first, last, points, **options), first, last)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_identical(a: StationaryPoint, b: StationaryPoint, but: tuple[str, ...] = ()) -> None:
    for field in dataclasses.fields(StationaryPoint):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name in but:
            continue
        if isinstance(x, np.ndarray):
            assert x.shape == y.shape, field.name
            assert x.tobytes() == y.tobytes(), field.name
        else:
            assert x == y or (x != x and y != y), field.name


def make_atlas(path) -> Catalogue:
    """40 starts of one campaign: three minima with 20, 10 and 4 hits, a saddle with 4, 2 starts unfinished."""
    campaign = make_campaign(3, 3)
    points = [make_point(campaign.landscape, loss) for loss in (0.0, 0.0123456789, 0.25)]
    points.append(make_point(campaign.landscape, 0.5, verdict="saddle"))
    ended = [0] * 20 + [1] * 10 + [2] * 4 + [3] * 4 + [-1] * 2
    atlas = Catalogue(path, create=True, matcher=same_loss)
    atlas.register(campaign, 64, "cpu")
    atlas.commit_shard(make_result(campaign, 0, 40, points, ended), 0, 40)
    atlas.finish(campaign.id, "complete")
    return atlas


def given(count: int = 4) -> Campaign:
    Q = np.stack([(k + 1) * np.eye(3) for k in range(count)])
    return Campaign(Landscape(3, 2), law=InitialLaw(Q=Q, R=np.full((count, 3, 2), 0.1)))


def fill(atlas: Catalogue, campaign: Campaign, *ranges: tuple[int, int], rounding: float = 0.0) -> None:
    """Starts that end in turn in three minima and a saddle; their number fixes which."""
    atlas.register(campaign, 5, "cpu")
    points = [make_point(campaign.landscape, loss + rounding) for loss in (0.5, 0.2, 0.7)]
    points.append(make_point(campaign.landscape, 0.3, "saddle"))
    for first, last in ranges:
        index = np.arange(first, last)
        ended = np.where(index % 7 == 6, -1, index % 4)
        used = sorted({int(k) for k in ended if k >= 0})
        place = {k: position for position, k in enumerate(used)} | {-1: -1}
        result = make_result(campaign, first, last, [points[k] for k in used], [place[int(k)] for k in ended])
        atlas.commit_shard(result, first, last)
