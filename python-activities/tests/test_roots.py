"""Where inputs are read and outputs are written, on real files; buckets by their addresses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rankflow.contracts.errors import RETRYABLE, ErrorType, RankflowError
from rankflow.roots import ROOTS, allowed_roots, check_allowed, check_opened
from rankflow.rows.scheduled import size_of, split
from rankflow.rows.source import open_input
from rankflow.store import open_store


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root, a sibling whose name begins alike, and links out of the root."""
    base = tmp_path.resolve()
    (base / "given" / "deep").mkdir(parents=True)
    (base / "given2").mkdir()
    (base / "given" / "in.jsonl").write_text("{}\n")
    (base / "given2" / "out.jsonl").write_text('{"secret": 1}\n')
    (base / "given" / "link").symlink_to(base / "given2")
    (base / "given" / "file.jsonl").symlink_to(base / "given2" / "out.jsonl")
    (base / "given" / "dangling").symlink_to(base / "nowhere")
    (base / "given" / "inner").symlink_to(base / "given" / "deep")
    (base / "alias").symlink_to(base / "given")
    monkeypatch.setenv(ROOTS, f"{base / 'given'}, s3://bucket/team/a")
    return base


OUTSIDE = [
    "{base}/given2/out.jsonl",
    "{base}/given/../given2/out.jsonl",
    "{base}/given/deep/../in.jsonl",
    "{base}/given/link/out.jsonl",
    "{base}/given/file.jsonl",
    "{base}/given/dangling",
    "{base}/given/dangling/x",
    "{base}",
    "file://{base}/given2/out.jsonl",
    "file://{base}/given/%2e%2e/given2/out.jsonl",
    "s3://bucket2/team/a/x",
    "s3://bucket/team/ab/x",
    "s3://bucket/team/a/../b/x",
    "s3://bucket/team/a/%2e%2e/b/x",
    "s3://bucket/team/a/..?x/b",
    "s3://bucket/team/a/..#x/b",
    "s3://bucket/team/a/.\t./b/x",
    "s3://bucket/team/a/.. ",
    "s3://bucket/team/a//x",
    "gs://bucket/team/a/x",
    "https://bucket.s3.amazonaws.com/team/a/x",
    "memory:///x",
    "given/in.jsonl",
]


@pytest.mark.parametrize("location", OUTSIDE)
def test_what_is_outside_is_refused_with_one_error_that_names_the_roots(
    base: Path, location: str
) -> None:
    with pytest.raises(RankflowError) as caught:
        check_allowed(location.format(base=base))
    assert caught.value.kind is ErrorType.PATH_REFUSED
    assert caught.value.kind not in RETRYABLE
    assert f"({base / 'given'}, s3://bucket/team/a)" in str(caught.value)


def test_what_is_below_is_allowed_also_through_links_that_stay_in(base: Path) -> None:
    for good in (
        *(
            "{base}/given",
            "{base}/given/in.jsonl",
            "{base}/given/new/folder",
            "{base}/given/inner/x",
        ),
        *("{base}/alias/in.jsonl", "{base}/given/..names/x", "file://{base}/given/in.jsonl"),
        *("s3://bucket/team/a", "s3://bucket/team/a/", "S3://bucket/team/a/deep/x.jsonl"),
    ):
        check_allowed(good.format(base=base))


def test_a_root_that_makes_no_sense_allows_nothing(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for root in ("relative", "/a/../b", "s3://", f"{base},s3://b/../c"):
        monkeypatch.setenv(ROOTS, root)
        with pytest.raises(RankflowError, match="RANKFLOW_ALLOWED_ROOTS has"):
            check_allowed(str(base / "given" / "in.jsonl"))


def test_everything_is_allowed_when_nothing_is_set(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("", " , "):
        monkeypatch.setenv(ROOTS, text)
        assert allowed_roots() is None
        for location in OUTSIDE:
            check_allowed(location.format(base=base))


@pytest.mark.parametrize("name", ["file.jsonl", "link/out.jsonl", "../given2/out.jsonl"])
def test_an_input_outside_is_not_read(base: Path, name: str) -> None:
    uri = f"{base}/given/{name}"
    with pytest.raises(RankflowError, match="not below an allowed root"), open_input(uri):
        pass
    with pytest.raises(RankflowError, match="not below an allowed root"):
        size_of(uri)
    with open_input(f"{base}/given/in.jsonl") as source:
        assert source.path.read_bytes() == b"{}\n"


def test_an_input_stays_the_file_it_was_when_its_name_is_made_to_lead_elsewhere(
    base: Path,
) -> None:
    name = base / "given" / "in.jsonl"
    with open_input(str(name)) as source:
        name.unlink()
        name.symlink_to(base / "given2" / "out.jsonl")
        assert source.path.read_bytes() == b"{}\n"


def test_a_file_that_was_opened_in_spite_of_all_is_refused(base: Path) -> None:
    # As when a folder becomes a link between the look and the opening.
    with (
        (base / "given2" / "out.jsonl").open("rb") as file,
        pytest.raises(RankflowError, match="not below an allowed root"),
    ):
        check_opened(file.fileno())
    with (base / "given" / "in.jsonl").open("rb") as file:
        check_opened(file.fileno())


def test_a_store_outside_is_not_opened(base: Path) -> None:
    for root in (base / "given2", base / "given" / "link", base):
        with pytest.raises(RankflowError, match="not below an allowed root"):
            open_store(str(root))
    with pytest.raises(RankflowError, match="not below an allowed root"):
        open_store("s3://bucket/team/b")
    with pytest.raises(RankflowError, match="not below an allowed root"):
        split(f"{base}/given2/answers.jsonl")


def test_a_link_in_a_store_leads_nowhere_also_one_that_is_made_later(base: Path) -> None:
    store = open_store(str(base / "given"))
    store.put("runs/a/plan.json", b"{}")
    (base / "given" / "runs" / "a" / "plan.json").unlink()
    (base / "given" / "runs" / "a" / "plan.json").symlink_to(base / "given2" / "out.jsonl")
    (base / "given" / "runs" / "b").symlink_to(base / "given2")

    def streamed(key: str) -> object:
        return list(store.stream(key))

    read: list[Callable[[str], object]] = [store.read, store.size, streamed]
    for act in read:
        with pytest.raises(RankflowError, match="not below an allowed root"):
            act("runs/a/plan.json")
        with pytest.raises(RankflowError, match="not below an allowed root"):
            act("runs/b/out.jsonl")
    for key in ("runs/a/plan.json", "runs/b/new.json"):
        with pytest.raises(RankflowError, match="not below an allowed root"):
            store.put(key, b"overwritten")
        with pytest.raises(RankflowError, match="not below an allowed root"):
            store.append(key)
        with pytest.raises(RankflowError, match="not below an allowed root"):
            store.writer(key)
    assert [file.name for file in (base / "given2").iterdir()] == ["out.jsonl"]
    assert b"secret" in (base / "given2" / "out.jsonl").read_bytes()
