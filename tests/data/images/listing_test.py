"""What systems leave in folders is no picture, and is reported."""

import os

import pytest

from meta_pseudo_labels.data.images.listing import (
    file_identity,
    is_left,
    list_files,
    shown,
)
from tests.tiny_folders import load, write

FOLDERS = [
    *("@eaDir", "#recycle", "@Recycle", "#snapshot", "$RECYCLE.BIN"),
    *("System Volume Information", "__MACOSX", "lost+found", "LOST.DIR"),
    *(".Trashes", ".thumbnails", ".AppleDouble", ".picasaoriginals", ".git"),
    *("found.000", "Catalog Previews.lrdata", "Network Trash Folder"),
    *("@__thumb", "My.photoslibrary"),
]
DOUBTFUL = ["RECYCLER", "Recycled"]  # Beside classes, they may be some.
FOLDERS += DOUBTFUL
FILES = [
    *(".DS_Store", "._1.jpg", ".nomedia", "Icon\r", "Thumbs.db", "THUMBS.DB"),
    *("ehthumbs_vista.db", "desktop.ini", "SYNOPHOTO_THUMB_SM.jpg"),
    *("MVI_0001.THM", "IMG_1.AAE", "IMG_1.xmp", "1.jpg~", "1.jpg.part"),
    *("1.jpg.crdownload", "x.tmp", "~$x.jpg", "1.jpg.bak", "Picasa.ini"),
    *("1.jpg_original", "1.jpg_exiftool_tmp", "1.jpg.!qB", "1.jpg.bc!"),
    *("AlbumArt_{1A-2B}_Large.jpg", "AlbumArtSmall.jpg"),
    "1.jpg.sb-0a1b2c3d-4e5f6g",
    "1.sync-conflict-20240102-030405-ABCDEFG.jpg",
    "1 (Ann's conflicted copy 2024-01-02).jpg",
]
PICTURES = ["Icon.png", "tmp.png", "1 (copy).jpg", "$5.png", "thumb.jpg", "#1"]
PICTURES += ["albumart7.jpg", "cat_original", "!sync.jpg"]


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_systems_leave(name):
    assert is_left(name, is_folder=True)


@pytest.mark.parametrize("name", FILES)
def test_files_that_systems_leave(name):
    assert is_left(name, is_folder=False)


@pytest.mark.parametrize("name", PICTURES)
def test_names_of_users(name):
    assert not is_left(name, is_folder=False)
    assert not is_left(name.split(".")[0], is_folder=True)


def test_thumbnails_are_no_pictures(folders, logged):
    want = load(folders)
    logged.clear()
    for folder in FOLDERS:
        for part in ("labeled/ant", "labeled", "unlabeled/a", "eval/cow"):
            if part != "labeled" or folder not in DOUBTFUL:
                write(folders / part / folder / "1.png" / "S.jpg", 77)
    for file in FILES:
        for part in ("labeled/ant", "labeled", "unlabeled", "eval"):
            write(folders / part / file, 78)
    got = load(folders, strict=True)
    for part in ("labeled", "unlabeled", "test"):
        images = getattr(got, f"{part}_images")
        assert (images == getattr(want, f"{part}_images")).all()
    each = 2 * (len(FOLDERS) + len(FILES))
    assert len(got.passed_over) == 2 * each - len(DOUBTFUL)
    assert "@eaDir" in got.passed_over and "a/@eaDir" in got.passed_over
    in_labeled = each - len(DOUBTFUL)
    assert f"labeled: passed over {in_labeled} files or folders" in logged[0]
    assert f"and {in_labeled - 5} more" in logged[0]
    assert all("\n" not in line and "\r" not in line for line in logged)


def test_nothing_is_said_of_nothing(folders, logged):
    assert load(folders).passed_over == ()
    assert not [line for line in logged if "passed over" in line]


def test_links_have_the_identity_of_their_file(tmp_path):
    write(tmp_path / "a.png", 0)
    write(tmp_path / "b.png", 0)
    (tmp_path / "soft.png").symlink_to(tmp_path / "a.png")
    os.link(tmp_path / "a.png", tmp_path / "hard.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    a, b, soft, hard, gone = (
        file_identity(tmp_path / f"{name}.png")
        for name in ("a", "b", "soft", "hard", "gone")
    )
    assert a == soft == hard != b
    assert gone is None and file_identity(tmp_path) is None


def test_names_are_shown_on_one_line(tmp_path):
    (tmp_path / "a\nb.png").write_bytes(b"")
    (name,), _ = list_files(tmp_path)
    assert shown(name) == "a\\nb.png"
    assert shown("gr\u00fcn \u732b.png") == "gr\u00fcn \u732b.png"
    assert shown(os.fsdecode(b"\xff\x1b")) == "\ufffd\\x1b"
