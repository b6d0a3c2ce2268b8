"""Forked processes and changed settings of JAX: one clear line, at once, and never another result."""

import contextlib
import multiprocessing
import subprocess
import sys
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import enumerator as en
from cluster.cli import run_command
from enumerator.identification.identify import identify
from enumerator.lanes.sampling import start_key
from enumerator.loss.overlaps import Overlaps
from enumerator.replay import replay
from enumerator.verification.verify import verify

LANDSCAPE = en.Landscape(2, 2)
CAMPAIGN = en.Campaign(LANDSCAPE)
ORTHONORMAL = Overlaps(jnp.eye(2), jnp.eye(2), jnp.eye(2))
SGD = en.Campaign(LANDSCAPE, en.Dynamics("one-pass-sgd", 0.1, 1.0), en.InitialLaw(dimension=10))


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> en.Catalogue:
    return en.Catalogue(tmp_path_factory.mktemp("catalogues") / "atlas", create=True)


def loss_of_the_teachers() -> float:
    return float(en.population_loss(ORTHONORMAL))


# What computes, from outside.
COMPUTE: dict[str, Callable[[en.Catalogue], object]] = {
    "enumerate": lambda atlas: en.enumerate_minima(LANDSCAPE, starts=2),
    "sgd": lambda atlas: en.enumerate_minima(LANDSCAPE, 2, dynamics=SGD.dynamics, law=SGD.law),
    "replay": lambda atlas: replay(CAMPAIGN, 0),
    "replay sgd": lambda atlas: replay(SGD, 0),
    "identify": lambda atlas: identify(atlas, Q=np.eye(2), R=np.eye(2), landscape=LANDSCAPE),
    "verify": lambda atlas: verify(atlas, 0),
    "loss": lambda atlas: loss_of_the_teachers(),
}
READ: dict[str, Callable[[en.Catalogue], object]] = {
    "a table": lambda atlas: atlas.minima(),
    "SQL": lambda atlas: atlas.sql("select 1"),
    "the starts done": lambda atlas: atlas.done("c-0"),
    "opened anew": lambda atlas: en.Catalogue(atlas.store.address),
    "made": lambda atlas: en.Catalogue(atlas.store.address + "-new", create=True),
    "written to": lambda atlas: atlas.finish("c-0"),
}


@contextlib.contextmanager
def setting(name, value):
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


@pytest.mark.parametrize("compute", COMPUTE.values(), ids=COMPUTE)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_enable_x64", False),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_threefry_partitionable", False),
        ("jax_random_seed_offset", 1),
        ("jax_transfer_guard", "disallow"),
    ],
)
def test_a_setting_of_jax_that_was_changed_is_named(name, value, compute, atlas):
    with setting(name, value), pytest.raises(en.InputError, match=rf"setting {name} must be .*, got {value!r}: "):
        compute(atlas)


def test_the_starts_do_not_follow_the_default_generator():
    expected = jax.random.uniform(start_key(0, jnp.asarray(7)))
    with setting("jax_default_prng_impl", "rbg"):
        assert jax.random.uniform(start_key(0, jnp.asarray(7))) == expected


def test_a_command_ends_in_one_line(atlas, capsys):
    with setting("jax_numpy_rank_promotion", "raise"):
        assert run_command(["verify", atlas.store.address]) == 2
    assert capsys.readouterr() == (
        "",
        "error: the JAX setting jax_numpy_rank_promotion must be 'allow' for this package, got 'raise': "
        "jax.config.update('jax_numpy_rank_promotion', 'allow').\n",
    )


def said_in_a_fork(work: Callable[[], object]) -> str:
    """What the error says that `work` raises in a process forked from this one; it has a minute."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        try:
            sender.send(f"no error: {work()}")
        except BaseException as error:
            sender.send(f"{type(error).__name__}: {error}")

    with warnings.catch_warnings(action="ignore"):  # of JAX and of Python, which know that this may hang
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(60) else "nothing"
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_a_catalogue_in_a_forked_worker_says_so_in_one_line(read, atlas):
    atlas.minima()
    said = said_in_a_fork(lambda: read(atlas))
    assert said.startswith("InputError: this process was forked from one that uses a catalogue")
    assert "'spawn'" in said and "\n" not in said


@pytest.mark.parametrize("compute", COMPUTE.values(), ids=COMPUTE)
def test_a_computation_in_a_forked_worker_says_so_in_one_line(compute, atlas):
    assert loss_of_the_teachers() == pytest.approx(0, abs=1e-12)
    said = said_in_a_fork(lambda: compute(atlas))
    assert said.startswith("InputError: this process was forked from one that uses JAX")


def test_a_forked_worker_may_be_the_first_to_open_one(atlas):
    code = f"""
import multiprocessing, enumerator as en
def rows(): return en.Catalogue({atlas.store.address!r}).minima().num_rows
with multiprocessing.get_context("fork").Pool(1) as pool: print(pool.apply(rows))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("0\n", "")
