"""How a batch is spread, and what is refused. (`test_composed.py` has what a spread model computes.)"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from tests.model.helpers import FULL, lay_out, random_variables, small
from zaya_jax.errors import UserError
from zaya_jax.model import Execution, Zaya
from zaya_jax.parallel import batch_shards, column_shards, each_device, make_mesh, rows_spec, spread


def abstract_mesh(**sizes):
    """A mesh of one device, told to have these sizes: enough for what is refused before it runs."""
    shape = tuple(sizes.get(axis, 1) for axis in ("data", "fsdp", "expert", "context"))
    return jax.sharding.AbstractMesh(shape, ("data", "fsdp", "expert", "context"))


def test_rows_are_spread_over_three_of_the_axes():
    assert batch_shards(None) == batch_shards(abstract_mesh(context=4)) == 1
    assert batch_shards(abstract_mesh(data=2, fsdp=3, expert=4, context=5)) == 24


def test_columns_are_spread_over_the_fourth():
    assert column_shards(None) == column_shards(abstract_mesh(data=4)) == 1
    assert column_shards(abstract_mesh(data=2, context=5)) == 5
    assert rows_spec(columns=True) == jax.sharding.PartitionSpec(("data", "fsdp", "expert"), "context")


def test_without_a_mesh_it_is_a_plain_call():
    def add(rows, weights):
        return rows + weights

    assert each_device(None, add, 1, 2) == each_device(make_mesh(), add, 1, 2) == 3
    x = jnp.ones(3)
    assert spread(None, x) is x


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"the batch does not divide evenly; expected a multiple of 8.*; found 6"):
        each_device(abstract_mesh(fsdp=8), lambda rows, weights: rows, jnp.zeros((6, 2)), ())


@pytest.mark.parametrize("tokens", [4, 9, 1])
def test_columns_that_do_not_divide_are_refused(tokens):
    # Of 4 tokens each of 4 devices would have one: too short for the halo of its neighbour.
    message = rf"the tokens of a row do not divide evenly; expected a multiple of 4.*2 tokens each; found {tokens};"
    mesh, rows = abstract_mesh(context=4), jnp.zeros((6, tokens))
    with pytest.raises(UserError, match=message):
        each_device(mesh, lambda rows, weights: rows, rows, (), columns=True)
    with pytest.raises(UserError, match=message):
        spread(mesh, rows, columns=True)
    assert spread(mesh, rows) is rows  # with a cache the columns stay whole


def test_a_model_refuses_columns_that_do_not_divide():
    config = small((FULL,))
    model, batch = Zaya(config, Execution(mesh=abstract_mesh(context=4))), lay_out(config, [[6]])
    with pytest.raises(UserError, match=r"the tokens of a row do not divide evenly; .*found 6; take another length"):
        jax.eval_shape(model.apply, random_variables(config, Execution()), *batch)


def test_a_mesh_is_part_of_an_execution_and_is_hashed():
    execution = Execution(mesh=make_mesh())
    assert hash(execution) == hash(Execution(mesh=make_mesh()))
    assert execution != dataclasses.replace(execution, mesh=None)


def test_a_mesh_of_one_device_changes_nothing():
    config, batch = small((FULL,)), lay_out(small((FULL,)), [[3]])
    variables = random_variables(config, Execution())
    plain, meshed = (Zaya(config, Execution(mesh=m)).apply(variables, *batch).logits for m in (None, make_mesh()))
    assert (plain == meshed).all()


def test_a_mesh_needs_its_axes():
    with pytest.raises(UserError, match=r"Execution\.mesh: no such mesh; expected None or a mesh with the axes data"):
        Execution(mesh=jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,)))
