"""Names of databroker on today's objects: an AttributeError that says what to write instead."""

from __future__ import annotations

import copy
import pickle
from itertools import chain

import pytest

import daskbroker
from daskbroker.core.old_names import OLD_NAMES, OTHER_NAMES
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all


@pytest.fixture
def objects(db):
    insert_all(db, make_run(2, uid="a-run"))
    return {"DataBroker": db, "Header": db["a-run"], "Results": db()}


NAMES = [(kind, name) for kind, table in OLD_NAMES.items() for name in table]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_an_old_name_says_what_to_write(objects, kind, name):
    objects["daskbroker"] = daskbroker
    if name in ("keys", "stream") and hasattr(type(objects[kind]), name):
        pytest.fail(f"{kind}.{name} is there; the table of old names hides nothing")
    assert not hasattr(objects[kind], name)
    with pytest.raises(AttributeError, match=r"db\.v1") as caught:
        getattr(objects[kind], name)
    assert OLD_NAMES[kind][name] in str(caught.value)
    assert caught.value.name == name


def test_a_name_of_pandas_or_xarray_says_what_to_write(objects):
    for kind, table in OTHER_NAMES.items():
        for name, instead in table.items():
            with pytest.raises(AttributeError, match=rf"no attribute '{name}': write ") as caught:
                getattr(objects[kind], name)
            assert str(caught.value).endswith(instead)


def test_other_names_are_just_not_there(objects):
    for one in objects.values():
        assert not hasattr(one, "nosuch")
        assert not hasattr(one, "__nosuch__")
        assert not hasattr(one, "_ipython_display_")
        with pytest.raises(AttributeError, match=r"has no attribute 'nosuch'$"):
            _ = one.nosuch


def test_an_import_of_an_old_name_says_what_to_write():
    for name, instead in OLD_NAMES["daskbroker"].items():
        with pytest.raises(ImportError, match=r"^cannot import name .*db\.v1") as caught:
            exec(f"from daskbroker import {name}", {})
        assert instead in str(caught.value)
    with pytest.raises(ImportError, match=r"cannot import name 'nosuch' from 'daskbroker'"):
        exec("from daskbroker import nosuch", {})


def test_other_shapes_of_a_header_say_what_to_write(objects):
    header = objects["Header"]
    with pytest.raises(KeyError, match=r"start, stop, descriptors, not 'primary'; .*header\.table"):
        _ = header["primary"]
    with pytest.raises(KeyError, match=r"not 'motor'; .*header\.table\('primary'\)"):
        _ = header["motor"]
    for key in (0, "nosuch"):
        with pytest.raises(
            KeyError, match=r"by stream, .*descriptors\['primary'\]\[0\].*: primary"
        ):
            _ = header["descriptors"][key]
    assert pickle.loads(pickle.dumps(header.descriptors)) == header.descriptors


def test_what_only_pandas_has_says_that_a_table_is_lazy(objects):
    table = objects["Header"].table()
    for one, name in ((table, "to_numpy"), (table, "plot"), (table["x"], "to_numpy")):
        with pytest.raises(
            AttributeError, match=rf"\.compute\(\) .*pandas .*has '{name}'"
        ) as caught:
            getattr(one, name)
        assert caught.value.name == name
    assert not hasattr(table, "nosuch")
    assert table.x.sum().compute() == table["x"].sum().compute()


def test_a_subclass_knows_them(tmp_path, db):
    class Mine(daskbroker.DataBroker):
        pass

    mine = Mine(db.header_source, db.event_sources)
    with pytest.raises(AttributeError, match=r"'Mine' object.*header\.table"):
        _ = mine.get_table


def test_an_error_inside_a_property_is_shown_itself(db):
    class Mine(daskbroker.DataBroker):
        @property
        def broken(self):
            return self.header_source.nosuch

    with pytest.raises(AttributeError, match="HeaderSource"):
        _ = Mine(db.header_source, db.event_sources).broken


def test_pickles_and_copies_are_as_before(objects):
    for one in objects.values():
        again = pickle.loads(pickle.dumps(one))
        assert type(again) is type(one)
        assert type(copy.copy(one)) is type(one)
    header = objects["Header"]
    assert copy.deepcopy(header) == header
    bare = daskbroker.Header.__new__(daskbroker.Header)
    assert not hasattr(bare, "data")


def test_the_replacements_are_there(objects):
    """Each name of ours that a message tells of."""
    db, header = objects["DataBroker"], objects["Header"]
    told = " ".join(chain.from_iterable(table.values() for table in OLD_NAMES.values()))
    for owner, prefix in ((db, "db."), (header, "header."), (daskbroker, "daskbroker.")):
        for part in told.split(prefix)[1:]:
            name = part.replace("(", " ").replace(")", " ").replace(",", " ").replace(".", " ")
            assert hasattr(owner, name.split()[0]), part


def test_keys_of_a_run_are_completed(objects):
    header = objects["Header"]
    assert header._ipython_key_completions_() == ["start", "stop", "descriptors"]
