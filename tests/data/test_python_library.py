"""The text that every Python ships: large, without tests, split by name alone."""

from zaya_jax.data.python_library import documents, is_held_out


def test_the_parts_are_the_whole_and_share_nothing():
    train, held_out, whole = (documents(part) for part in ("train", "held_out", "all"))
    assert {**train, **held_out} == whole and not train.keys() & held_out.keys()
    assert list(whole) == sorted(whole)
    size = sum(map(len, held_out.values())) / sum(map(len, whole.values()))
    assert 0.02 < size < 0.1
    assert 5_000_000 < sum(map(len, whole.values())) < 20_000_000


def test_a_name_decides_alone():
    names = [f"library/{i}.py" for i in range(10_000)]
    assert 400 < sum(map(is_held_out, names)) < 600
    assert [
        name for name in ("library/optparse.py", "library/json/decoder.py", "topics/booleans") if is_held_out(name)
    ] == [
        "library/optparse.py",
        "topics/booleans",
    ]


def test_sources_and_pages_but_no_tests_tables_or_other_packages():
    names = documents("all")
    assert {"library/json/decoder.py", "library/argparse.py", "topics/raise"} <= names.keys()
    folders = {part for name in names for part in name.split("/")[:-1]}
    assert not folders & {"site-packages", "test", "tests", "idle_test", "lib2to3", "encodings", "pydoc_data"}
    assert all(text for text in names.values())
